"""Synthetic captions: several independent samples per image from a CoCa captioner (MobileCLIP, section 3)."""

import json
from pathlib import Path

import pandas as pd
import torch

from clipdr.data.samples import decode_image
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.models.load import load_model
from clipdr.progress import progress

BATCH = 64
ATTEMPTS = 20  # at an image whose captions come out empty
# The paper's generator, in what a scale may leave out.
PUBLISHED = {"min_tokens": 5, "redraws": 0}


def caption(pool: Path, subset: pd.DataFrame, captioner: Path, settings: dict, output: Path) -> None:
    """Write a parquet file with `uid` and `syn` (list of str), and beside it a JSON manifest on how they came out.

    The manifest says which share of the captions repeats the pool's clean label word for word, and how many of an
    image's captions differ: a captioner trained on little data recites, and a reader must see how much.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index to caption.
        captioner: open_clip folder of a CoCa model.
        settings: number (captions per image), top_p, temperature, max_tokens, min_tokens, redraws, seed.
        output: `<dataset>.parquet`; the manifest is `<dataset>.json`.
    """
    settings = PUBLISHED | settings
    model = load_model(captioner)
    samples = list(subset_samples(pool, subset))
    img = torch.stack([model.preprocess(decode_image(sample)) for sample in samples])
    torch.manual_seed(settings["seed"])
    rows = [{"uid": sample["__key__"], "syn": []} for sample in samples]
    for _ in progress(range(settings["number"]), "captions per image", settings["number"]):
        for row, text in zip(rows, generate(model, img, settings, [set(r["syn"]) for r in rows]), strict=True):
            row["syn"].append(text)
    labels = [json.loads(sample["json"])["label"] for sample in samples]
    with atomic_file(output) as path, atomic_file(output.with_suffix(".json")) as manifest:
        pd.DataFrame(rows).to_parquet(path, index=False)
        manifest.write_text(json.dumps(describe(rows, labels) | settings, indent=2, sort_keys=True) + "\n")


def describe(rows: list[dict], labels: list[str | None]) -> dict:
    """Share of captions equal to the clean label, and mean share of an image's captions that differ from each other.

    The first is None where no image has a label.
    """
    labelled = [(row["syn"], label.lower()) for row, label in zip(rows, labels, strict=True) if label is not None]
    equal = [text.lower() == label for syn, label in labelled for text in syn]
    return {
        "images": len(rows),
        "captions": sum(len(row["syn"]) for row in rows),
        "share_equal_to_label": round(sum(equal) / len(equal), 4) if equal else None,
        "share_distinct_per_image": round(sum(len(set(r["syn"])) / len(r["syn"]) for r in rows) / len(rows), 4),
    }


def generate(model, img: torch.Tensor, settings: dict, taken: list[set[str]] | None = None) -> list[str]:
    """One caption per image, sampled with nucleus sampling.

    A caption ends at its first full stop, as in the paper. One that the image has already is drawn again up to
    `redraws` times, then kept: some drawings leave the captioner no choice. An empty one is never kept.

    Args:
        img: float32 [N, 3, S, S], normalised for the model.
        settings: top_p, temperature, max_tokens, min_tokens, redraws.
        taken: per image, the captions that it has already.

    Raises:
        UserError: some images got nothing but empty captions.
    """
    settings = PUBLISHED | settings
    texts = [""] * len(img)
    taken = taken or [set()] * len(img)
    for attempt in range(ATTEMPTS):
        again = [n for n, text in enumerate(texts) if not text or (attempt <= settings["redraws"] and text in taken[n])]
        if not again:
            return texts
        for rows in torch.tensor(again, dtype=torch.long).split(BATCH):
            for number, text in zip(rows.tolist(), _sample(model, img[rows], settings), strict=True):
                texts[number] = text
    raise UserError(
        f"the captioner has no words for {texts.count('')} of {len(texts)} images; "
        "train it longer, or raise `top_p` or `temperature` of the scale's captions"
    )


def _sample(model, img: torch.Tensor, settings: dict) -> list[str]:
    start, end, pad = model.tokenizer.marks
    tokens = model.generate(
        img,
        generation_type="top_p",
        top_p=settings["top_p"],
        temperature=settings["temperature"],
        seq_len=settings["max_tokens"],
        max_seq_len=model.context_length,
        min_seq_len=settings["min_tokens"],
        sot_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
        fixed_output_length=True,
    )
    return [text.partition(".")[0].rstrip() for text in model.tokenizer.decode(tokens)]
