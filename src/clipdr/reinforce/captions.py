"""Synthetic captions: several independent samples per image from a CoCa captioner (MobileCLIP, section 3).

A caption belongs to its image: it is drawn with a generator of the image's uid and the caption's number, in a batch of
images of one shard. So neither the number of captions nor that of chunks changes what an image gets.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clipdr.chunks import batched
from clipdr.data.manifest import MANIFEST, write_manifest
from clipdr.data.samples import decode_image
from clipdr.data.shards import captions_of
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import atomic_file, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.models.folder import weights_file
from clipdr.models.load import load_model
from clipdr.progress import unfinished
from clipdr.reinforce.sampling import encode, sample

BATCH = 64
ATTEMPTS = 20  # at an image whose captions come out empty
# The paper's generator, in what a scale may leave out.
PUBLISHED = {"min_tokens": 5, "redraws": 0}


def caption(
    pool: Path, subset: pd.DataFrame, captioner: Path, settings: dict, output: Path, device: str = "cpu"
) -> None:
    """Write the captions of each shard and a manifest; shards finished before a kill are kept.

    The manifest counts how many captions repeat the pool's clean label word for word, and how many of an image's
    captions differ: a captioner trained on little data recites, and a reader must see how much.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index to caption.
        captioner: open_clip folder of a CoCa model.
        settings: number (captions per image), top_p, temperature, max_tokens, min_tokens, redraws, seed.
        output: folder of `<shard>.parquet` with `uid` and `syn` (list of str), and of manifest.json.
        device: on which the captioner runs.

    Raises:
        UserError: a sample is not in the pool or damaged, or gets nothing but empty captions.
    """
    settings = PUBLISHED | settings
    weights, code = sha256_file(weights_file(captioner)), own(__name__)
    token = sha256(json.dumps([code, settings, weights, subset.to_json()], sort_keys=True).encode())
    chosen = dict(iter(subset.groupby("shard", sort=True)))
    with resumable_dir(output, token) as folder:
        model = load_model(captioner, device)
        for shard in unfinished(chosen, output.name, lambda shard: folder / captions_of(shard)):
            rows = _caption(model, subset_samples(pool, chosen[shard]), settings)
            table = pd.DataFrame(rows, columns=["uid", "syn", "label"])
            with atomic_file(folder / captions_of(shard)) as path:
                table.to_parquet(path, index=False)
        manifest = {
            "samples": len(subset),
            "shards": {captions_of(shard): len(rows) for shard, rows in chosen.items()},
            **describe(pd.read_parquet(folder / captions_of(shard)) for shard in chosen),
            "settings": settings,
            "models": {"captioner": weights},
            "code": code,
        }
        write_manifest(manifest, folder / MANIFEST)


def _caption(model, samples: Iterator[dict], settings: dict) -> Iterator[tuple[str, list[str], str | None]]:
    """(uid, captions, clean label) of samples of a shard."""
    device = next(model.parameters()).device
    for some in batched(samples, BATCH):
        img = torch.stack([model.preprocess(decode_image(sample)) for sample in some]).to(device)
        seeds = [[settings["seed"], int(sample["__key__"][:16], 16)] for sample in some]
        labels = [json.loads(sample["json"])["label"] for sample in some]
        texts = generate(model, img, settings, seeds, settings["number"])
        yield from zip([sample["__key__"] for sample in some], texts, labels, strict=True)


def describe(tables: Iterable[pd.DataFrame]) -> dict[str, int]:
    """How many captions there are, how many of images with a label, equal to it, and different for their image."""
    numbers = Counter({"captions": 0, "labelled": 0, "equal_to_label": 0, "distinct": 0})
    for row in chain.from_iterable(table.itertuples() for table in tables):
        numbers["captions"] += len(row.syn)
        numbers["distinct"] += len(set(row.syn))
        if row.label is not None:
            numbers["labelled"] += len(row.syn)
            numbers["equal_to_label"] += sum(text.lower() == row.label.lower() for text in row.syn)
    return dict(numbers)


def generate(model, img_NCSS: Tensor, settings: dict, seeds: Sequence[Sequence[int]], number: int) -> list[list[str]]:
    """Captions per image, sampled with nucleus sampling.

    A caption ends at its first full stop, as in the paper. One that the image has already is drawn again up to
    `redraws` times, then kept: some drawings leave the captioner no choice. An empty one is never kept.

    Args:
        img_NCSS: float32, normalised for the model.
        settings: top_p, temperature, max_tokens, min_tokens, redraws.
        seeds: one per image; all that is drawn for an image comes from its seed and the caption's number.
        number: of captions per image.

    Raises:
        UserError: some images got nothing but empty captions.
    """
    settings = PUBLISHED | settings
    tokens_NQD = encode(model, img_NCSS)
    found: list[list[str]] = [[] for _ in seeds]
    for column in range(number):
        generators = [np.random.default_rng([*seed, column]) for seed in seeds]
        for syn, text in zip(found, _draw(model, tokens_NQD, settings, generators, found), strict=True):
            syn.append(text)
    return found


def _draw(
    model, tokens_NQD: Tensor, settings: dict, generators: list[np.random.Generator], taken: list[list[str]]
) -> list[str]:
    """One caption per image, which has those of `taken` already."""
    texts = [""] * len(taken)
    for attempt in range(ATTEMPTS):
        again = [n for n, text in enumerate(texts) if not text or (attempt <= settings["redraws"] and text in taken[n])]
        if not again:
            return texts
        out = sample(model, tokens_NQD[again], settings, [generators[n] for n in again])
        for n, text in zip(again, model.tokenizer.decode(out), strict=True):
            texts[n] = text.partition(".")[0].rstrip()
    raise UserError(
        f"the captioner has no words for {texts.count('')} of {len(texts)} images; "
        "train it longer, or raise `top_p` or `temperature` of the scale's captions"
    )
