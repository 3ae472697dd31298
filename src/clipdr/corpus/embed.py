"""Embeddings of sentences, or of images as they are, by one teacher: a table that is mapped into memory.

A folder has `embeddings.npy`, float16 [N, E], L2-normalised, in the order of the sentences or of the subset, and
`manifest.json`. Work that was done before a kill is kept, block by block.

Shapes: N texts or images, R those of a block, E width.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap

from clipdr.chunks import batched
from clipdr.data.samples import decode_image
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import atomic_file, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.models.folder import weights_file
from clipdr.progress import progress
from clipdr.reinforce.embed import BATCH, Teacher

BLOCK = 8192  # that are written, and kept, at once
EMBEDDINGS, MANIFEST, DONE = "embeddings.npy", "manifest.json", "done.json"


def embed_texts(sentences: Path, name: str, teacher: Path, output: Path, device: str = "cpu") -> None:
    """Embed sentences, the file `texts.parquet` of `clipdr.corpus.sentences`.

    Raises:
        UserError: there are none.
    """
    texts = pd.read_parquet(sentences, columns=["text"])["text"].tolist()
    model = Teacher(name, teacher, device)

    def blocks(done: int) -> Iterator[torch.Tensor]:
        for start in range(done, len(texts), BLOCK):
            groups = batched(texts[start : start + BLOCK], BATCH)
            yield torch.cat([model.texts(list(group)) for group in groups])

    _write(output, blocks, len(texts), model, [sha256_file(sentences), sha256_file(weights_file(teacher))])


def embed_images(pool: Path, subset: pd.DataFrame, name: str, teacher: Path, output: Path, device: str = "cpu") -> None:
    """Embed the images of a subset, each as a teacher's own preprocessing cuts it.

    Raises:
        UserError: a sample is not in the pool, or there are none.
    """
    model = Teacher(name, teacher, device)

    def blocks(done: int) -> Iterator[torch.Tensor]:
        samples = islice(subset_samples(pool, subset), done, None)
        for block in batched(samples, BLOCK):
            pixels = (
                torch.stack([model.model.preprocess(decode_image(one)) for one in group])
                for group in batched(block, BATCH)
            )
            yield torch.cat([model.inputs(img) for img in pixels])

    _write(output, blocks, len(subset), model, [subset.to_json(), sha256_file(weights_file(teacher))])


def read_embeddings(folder: Path) -> tuple[np.ndarray, dict]:
    """The embeddings, mapped into memory, and the manifest: `number`, `width`, `teacher` and `model`, a hash.

    Raises:
        UserError: a file is missing, damaged, or does not fit the other.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        vectors = np.load(folder / EMBEDDINGS, mmap_mode="r")
        fits = vectors.shape == (manifest["number"], manifest["width"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no embeddings ({error!r:.80}); delete it and embed again") from None
    if not fits:
        raise UserError(f"{folder}: {EMBEDDINGS} has shape {vectors.shape}, {MANIFEST} says another; embed again")
    return vectors, manifest


def _write(output: Path, blocks, number: int, teacher: Teacher, made_of: list[str]) -> None:
    """Write a folder from `blocks`, a function of how many rows are done that gives the next ones."""
    if not number:
        raise UserError(f"{output}: there is nothing to embed; give texts or images")
    with resumable_dir(output, sha256(json.dumps([own(__name__), *made_of]).encode())) as folder:
        new = not (folder / DONE).is_file()
        shape = (number, teacher.width) if new else None
        table = open_memmap(folder / EMBEDDINGS, "w+" if new else "r+", np.float16, shape)
        done = 0 if new else json.loads((folder / DONE).read_text())
        for rows_RE in progress(blocks(done), output.parent.name, -(-(number - done) // BLOCK)):
            table[done : done + len(rows_RE)] = rows_RE.cpu().numpy()
            done += len(rows_RE)
            table.flush()
            with atomic_file(folder / DONE) as path:
                path.write_text(json.dumps(done))
        manifest = {"number": number, "width": teacher.width, "teacher": teacher.name, "model": made_of[-1]}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (folder / DONE).unlink()
