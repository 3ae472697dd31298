"""A corpus: which sentences a student learns from, with the embeddings that each teacher gives them.

| method | chooses |
|---|---|
| all | every sentence |
| constructed | by images, a text of its own for each (`clipdr.corpus.matching`) |
| nearest | by images, the texts that are nearest to any of them, so many, or as many as another corpus has |
| random | uniformly, as many |

A folder has `texts.parquet` (text, and of a constructed one the row of its image), `<teacher>.npy`, float16 [M, E], and
`manifest.json`.

Shapes: N images, M texts, D width.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap

from clipdr.corpus.embed import MANIFEST, read_embeddings
from clipdr.corpus.matching import NONE, Blocks, as_float, find, parts
from clipdr.corpus.sentences import TEXTS
from clipdr.errors import UserError
from clipdr.files import resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.progress import log

SEARCH, COPIED = "search", 65_536  # folder of a search that goes on after a kill; rows that are copied at once


def build(
    settings: dict,
    sentences: Sequence[Path],
    texts: Sequence[Path],
    images: Path | None,
    like: Path | None,
    output: Path,
) -> None:
    """Write a corpus.

    Args:
        settings: `method`, `teachers` (names), and what the method reads: `conflict` (first or best), `block_images`,
            `block_texts`; `size`; `seed`; and `share`, how much of what is found is kept, drawn with `seed`.
        sentences: folders of `clipdr.corpus.sentences`; several are one.
        texts: their embeddings, for each teacher those of all sentences, one after the other.
        images: embeddings of the images by the first teacher.
        like: the corpus whose number of texts is taken, by `nearest` and `random`, if there is no `size`.
        output: folder.

    Raises:
        UserError: images and texts were embedded by different teachers, fewer texts than asked for, or vectors that are
            not finite.
    """
    made_of = [sha256_file(path / TEXTS) for path in sentences]
    made_of += [sha256_file(path / MANIFEST) for path in (*texts, images, like) if path]
    with resumable_dir(
        output, sha256(json.dumps([own(__name__), settings, made_of], sort_keys=True).encode())
    ) as folder:
        table = pd.concat([pd.read_parquet(path / TEXTS) for path in sentences], ignore_index=True)
        vectors, models = _of_teachers(settings["teachers"], texts, len(table))
        img_ND = _images(images, settings["teachers"][0], models) if images else None
        number = json.loads((like / MANIFEST).read_text())["texts"] if like else settings.get("size")
        search = folder / SEARCH
        search.mkdir(exist_ok=True)
        chosen, rounds = choose(settings, img_ND, vectors[settings["teachers"][0]], number, search)
        chosen = chosen.assign(text=table["text"].iloc[chosen["row"]].to_numpy()).drop_duplicates("text")
        if "share" in settings:
            size = max(1, round(settings["share"] * len(chosen)))
            chosen = chosen.iloc[_drawn(len(chosen), size, settings["seed"])]
        for name, txt_ME in vectors.items():
            _copy(txt_ME, chosen["row"].to_numpy(), folder / f"{name}.npy")
        chosen.drop(columns="row").to_parquet(folder / TEXTS, index=False)
        manifest = {**settings, "texts": len(chosen), "of": len(table), "rounds": rounds, "models": models}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(search)
    log.info("%s: %d of %d texts", output, len(chosen), len(table))


def choose(
    settings: dict, img_ND: np.ndarray | None, txt_MD: np.ndarray, number: int | None, search: Path
) -> tuple[pd.DataFrame, list[dict]]:
    """The chosen texts, `row` and, of a constructed corpus, the row of its `image`; and the rounds of the search."""
    if img_ND is not None:
        blocks = Blocks(settings["block_images"], settings["block_texts"])
    match settings["method"]:
        case "all":
            return pd.DataFrame({"row": np.arange(len(txt_MD))}), []
        case "random":
            return pd.DataFrame({"row": _drawn(len(txt_MD), number, settings["seed"])}), []
        case "nearest":
            return pd.DataFrame({"row": nearest(img_ND, txt_MD, number, blocks)}), []
        case "constructed":
            text_N, rounds = find(img_ND, txt_MD, settings["conflict"], blocks, search)
            images = np.flatnonzero(text_N != NONE)
            return pd.DataFrame({"row": text_N[images], "image": images}), rounds
    raise ValueError(settings["method"])


def nearest(img_ND: np.ndarray, txt_MD: np.ndarray, number: int, blocks: Blocks) -> np.ndarray:
    """The texts whose cosine to the image nearest to them is largest, the best first; a tie goes to the lower index."""
    _check_enough(number, len(txt_MD))
    blocks.check(len(img_ND), len(txt_MD), img_ND.shape[1])
    best_M = np.full(len(txt_MD), -np.inf, np.float32)
    for images in parts(len(img_ND), blocks.images):
        img_RD = as_float(img_ND[images])
        for texts in parts(len(txt_MD), blocks.texts):
            found = (as_float(txt_MD[texts]) @ img_RD.T).max(dim=1).values.numpy()
            best_M[texts] = np.maximum(best_M[texts], found)
    return np.argsort(-best_M, kind="stable")[:number]


def _drawn(of: int, number: int, seed: int) -> np.ndarray:
    _check_enough(number, of)
    return np.sort(np.random.default_rng(seed).choice(of, number, replace=False))


def _check_enough(number: int, of: int) -> None:
    if number > of:
        raise UserError(f"a corpus of {number} texts was asked of {of} sentences; give more sentences")


def _of_teachers(names: Sequence[str], texts: Sequence[Path], number: int) -> tuple[dict[str, np.ndarray], dict]:
    """Teacher -> embeddings of all sentences, and teacher -> hash of its weights; sources are joined in memory."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    models: dict[str, str] = {}
    for folder in texts:
        vectors, manifest = read_embeddings(folder)
        name = manifest["teacher"]
        if name not in found or models.setdefault(name, manifest["model"]) != manifest["model"]:
            raise UserError(
                f"{folder} was embedded by {name!r} of {manifest['model'][:12]}, another teacher; embed again"
            )
        found[name].append(vectors)
    joined = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in found.items() if parts}
    for name in names:
        if (found_of := len(joined.get(name, ()))) != number:
            raise UserError(f"teacher {name!r} has embeddings of {found_of} of {number} sentences; embed all of them")
    return joined, models


def _images(folder: Path, name: str, models: dict[str, str]) -> np.ndarray:
    vectors, manifest = read_embeddings(folder)
    if (manifest["teacher"], manifest["model"]) != (name, models[name]):
        raise UserError(
            f"{folder}: images were embedded by {manifest['teacher']!r} of {manifest['model'][:12]}, texts by {name!r} "
            f"of {models[name][:12]}; embed both by one teacher, or their cosines mean nothing"
        )
    return vectors


def _copy(vectors: np.ndarray, rows: np.ndarray, path: Path) -> None:
    """Write some rows, a part at a time."""
    table = open_memmap(path, "w+", vectors.dtype, (len(rows), vectors.shape[1]))
    for part in parts(len(rows), COPIED):
        table[part] = vectors[rows[part]]
    table.flush()
