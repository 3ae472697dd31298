"""The DataCompDR member layout (apple/DataCompDR-12M-bf16): what one sample of a reinforced shard holds.

| member | content |
|---|---|
| `webp` or `jpg` | the stored image, as it was in the pool |
| `txt` | the real caption |
| `syn.json` | `{"syn_text": [str, …]}` |
| `paug.json` | `{"param_aug": [entry, …]}`, see `clipdr.data.augment` |
| `pth.gz` | gzip of `torch.save({"image_emb": bf16 [A, E], "text_emb": bf16 [T, E]})`, or in its place |
| `npz` | `image_emb` and `text_emb` as float32; or as int8 with `image_scale` [A, 1] and `text_scale` [T, 1], our own |
| `json` | uid and sha256 of the image |

A is the number of views, T of texts (the real caption first), E the teachers' widths one after another, each slice
L2-normalised on its own.
"""

import gzip
import io
import json
import pickle
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipdr.data.shards import IMAGES
from clipdr.errors import UserError
from clipdr.files import sha256

# What json, gzip, torch.load and PIL raise on bytes that are not theirs.
DAMAGE = (
    *(LookupError, TypeError, ValueError, OSError, EOFError, RuntimeError, SyntaxError),
    *(zlib.error, zipfile.BadZipFile, pickle.UnpicklingError, Image.DecompressionBombError),
)


@dataclass(frozen=True)
class Sample:
    """What is stored of a sample beside its image: texts, augmentation entries, embeddings [A, E] and [T, E].

    Embeddings are bfloat16 or float32.
    """

    uid: str
    caption: str
    synthetic: list[str]
    augmentations: list
    img_AE: torch.Tensor
    txt_TE: torch.Tensor


def encode(
    pool_sample: dict,
    synthetic: list[str],
    augmentations: list,
    img_AE: torch.Tensor,
    txt_TE: torch.Tensor,
    precision: str = "bfloat16",
) -> dict:
    """The members of a reinforced sample; image and text are copied from the pool's sample byte by byte.

    Args:
        precision: of the embeddings, float32 as they come, as which they are stored; one of `PRECISIONS`.
    """
    details = json.loads(pool_sample["json"])
    return {
        **{name: pool_sample[name] for name in ("__key__", *IMAGES, "txt") if name in pool_sample},
        "syn.json": as_json({"syn_text": synthetic}),
        "paug.json": as_json({"param_aug": augmentations}),
        **PRECISIONS[precision](img_AE, txt_TE),
        "json": as_json({"uid": details["uid"], "sha256": details["sha256"]}),
    }


def _as_bfloat16(img_AE: Tensor, txt_TE: Tensor) -> dict[str, bytes]:
    emb = io.BytesIO()
    torch.save({"image_emb": img_AE.bfloat16(), "text_emb": txt_TE.bfloat16()}, emb)
    return {"pth.gz": gzip.compress(emb.getvalue(), mtime=0)}


def _as_float32(img_AE: Tensor, txt_TE: Tensor) -> dict[str, bytes]:
    return {"npz": _npz(image_emb=img_AE.numpy(), text_emb=txt_TE.numpy())}


def _as_int8(img_AE: Tensor, txt_TE: Tensor) -> dict[str, bytes]:
    """Each row in steps of a 127th of its largest entry."""
    arrays = {}
    for what, emb in (("image", img_AE), ("text", txt_TE)):
        scale = emb.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127 if emb.numel() else emb[:, :0].sum(1, True)
        arrays |= {f"{what}_emb": (emb / scale).round().to(torch.int8).numpy(), f"{what}_scale": scale.numpy()}
    return {"npz": _npz(**arrays)}


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


# How embeddings are stored -> the member that holds them.
PRECISIONS = {"bfloat16": _as_bfloat16, "float32": _as_float32, "int8": _as_int8}


def decode(sample: dict) -> Sample:
    """Read the members of a reinforced sample but its image, for which there are `check_image` and `decode_image`.

    Raises:
        UserError: a member is missing or damaged; names the sample.
    """
    try:
        (caption, *synthetic), augmentations = read_texts(sample)
        img_AE, txt_TE = _embeddings(sample)
        return Sample(
            uid=sample["__key__"],
            caption=caption,
            synthetic=synthetic,
            augmentations=augmentations,
            img_AE=img_AE,
            txt_TE=txt_TE,
        )
    except DAMAGE as error:
        raise _damaged(sample, error) from error


def check_image(sample: dict) -> None:
    """Raise UserError if the image of a reinforced sample is not the one that the teachers saw, by its hash.

    Who wrote the hash has decoded the image.
    """
    try:
        if sha256(_image_bytes(sample)) != json.loads(sample["json"])["sha256"]:
            raise ValueError("the image is not the one whose sha256 was stored")
    except DAMAGE as error:
        raise _damaged(sample, error) from error


def _damaged(sample: dict, error: BaseException) -> UserError:
    what = f"reinforced sample {sample['__key__']} is damaged ({repr(error)[:100]})"
    return UserError(f"{what}; delete its dataset and reinforce again")


def _embeddings(sample: dict) -> tuple[Tensor, Tensor]:
    """Those of views and of texts: bf16, or float32 if they are stored otherwise. Nothing in a member is executed."""
    if "pth.gz" in sample:
        emb = torch.load(io.BytesIO(gzip.decompress(sample["pth.gz"])), weights_only=True)
        return emb["image_emb"], emb["text_emb"]
    arrays = np.load(io.BytesIO(sample["npz"]), allow_pickle=False)
    scaled = (arrays[f"{what}_emb"] * arrays.get(f"{what}_scale", 1) for what in ("image", "text"))
    return tuple(torch.from_numpy(np.asarray(emb, np.float32)) for emb in scaled)


def read_texts(sample: dict) -> tuple[list[str], list]:
    """(real caption and synthetic ones, augmentation entries) of a reinforced sample; damage raises one of `DAMAGE`."""
    return [sample["txt"].decode(), *json.loads(sample["syn.json"])["syn_text"]], read_augmentations(sample)


def read_augmentations(sample: dict) -> list:
    """The augmentation entries of a reinforced sample; damage raises one of `DAMAGE`.

    `param_aug` may be a list (tar files) or a JSON string (as the hub's viewer and `datasets` deliver it).
    """
    entries = json.loads(sample["paug.json"])["param_aug"]
    return json.loads(entries) if isinstance(entries, str) else entries


def decode_image(sample: dict) -> Image.Image:
    """The RGB image of a pool or reinforced sample.

    Raises:
        UserError: it is missing or damaged; names the sample.
    """
    try:
        return Image.open(io.BytesIO(_image_bytes(sample))).convert("RGB")
    except DAMAGE as error:
        raise UserError(
            f"the image of sample {sample['__key__']} is damaged ({repr(error)[:100]}); write its shard again"
        ) from error


def slices(sample: Sample, teachers: list[dict], wanted: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (image embeddings [A, E], text embeddings [T, E]), float32, of the wanted teachers.

    Args:
        teachers: of the manifest, in the order of their slices: `name` and `width`.

    Raises:
        UserError: embeddings of another width than the teachers' together, fewer of them than views or texts, or a
            slice that is not L2-normalised; names the sample.
    """
    widths = [teacher["width"] for teacher in teachers]
    for what, emb, number in (
        ("image", sample.img_AE, len(sample.augmentations)),
        ("text", sample.txt_TE, 1 + len(sample.synthetic)),
    ):
        if tuple(emb.shape) != (number, sum(widths)):
            raise UserError(
                f"reinforced sample {sample.uid} has {what} embeddings {list(emb.shape)}, not {[number, sum(widths)]} "
                "as its views or texts and the manifest's teachers want; delete its dataset and reinforce again"
            )
    found = {}
    for teacher, img_AE, txt_TE in zip(
        teachers, sample.img_AE.split(widths, 1), sample.txt_TE.split(widths, 1), strict=True
    ):
        if teacher["name"] in wanted:
            found[teacher["name"]] = img_AE.float(), txt_TE.float()
            for emb in found[teacher["name"]]:
                check_unit(emb, [sample.uid] * len(emb), teacher["name"])
    return found


def check_unit(emb_NE: Tensor, uids: list[str], teacher: str) -> None:
    """Raise UserError if embeddings, float32, of samples `uids` are not L2-normalised; names the first that is not.

    bfloat16 rounds a norm of 1 by less than a hundredth.
    """
    right_N = (emb_NE.norm(dim=1) - 1).abs() < 0.01  # NaN is not below either
    if not right_N.all():
        raise UserError(
            f"reinforced sample {uids[int(right_N.int().argmin())]}: embeddings of teacher {teacher!r} are not "
            "L2-normalised; delete its dataset and reinforce again"
        )


def _image_bytes(sample: dict) -> bytes:
    return [sample[name] for name in IMAGES if name in sample][0]


def as_json(value: dict) -> bytes:
    """As all JSON members are written."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
