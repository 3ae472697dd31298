"""What reading reinforced samples costs, as ratios of samples per second taken in one run, on one thread.

    python benchmarks/loader.py

Samples are photographs of about 500 px, JPEG of quality 90, with 30 stored views, 5 synthetic captions and two teachers
of 768, as in DataCompDR-12M; a sample is read as one view of 256 px, one real and one synthetic caption, and their
embeddings.

1. Ours: rows (`clipdr.data.rows`).
2. The published layout read the published way: all embeddings inflated and unpickled, PIL's RGBA, torchvision's ops.
3. The JPEGs decoded and nothing else, from memory.

The three take turns over the same samples; medians. Exits with 1 if the first two give other embeddings or pixels.
"""

import gzip
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SAMPLES, SIDE, VIEWS = 128, 256, 30
AUGMENTATION = {"views": VIEWS, "image_size": 224, "crop_scale": [0.08, 1.0], "num_ops": 2, "magnitude": 9, "seed": 0}
TEACHERS = [{"name": name, "width": 768, "logit_scale": 100.0} for name in ("a", "b")]
CAPTIONS = [f"a photograph of part {n} of a place or of a plant" for n in range(6)]


def photographs(number: int) -> list[bytes]:
    """Parts of scikit-learn's two photographs, enlarged to 500 x 375 px."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random, found = np.random.default_rng(0), []
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for n in range(number):
        width = int(random.integers(300, 500))
        height, photo = width * 3 // 4, photos[n % 2]
        left, top = int(random.integers(photo.width - width)), int(random.integers(photo.height - height))
        part = photo.crop((left, top, left + width, top + height)).resize((500, 375), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        part.save(stream, "jpeg", quality=90)
        found.append(stream.getvalue())
    return found


def write_store(folder: Path) -> None:
    """The samples in the published form, one shard."""
    import torch

    from clipdr.data.augment import draw
    from clipdr.data.samples import encode
    from clipdr.data.shards import write_shard
    from clipdr.files import sha256

    random = np.random.default_rng(0)

    def sample(number: int, image: bytes) -> dict:
        def emb(rows: int):
            return torch.cat([torch.nn.functional.normalize(torch.randn(rows, 768), dim=1) for _ in TEACHERS], dim=1)

        uid = sha256(str(number).encode())[:32]
        details = json.dumps({"uid": uid, "sha256": sha256(image)}).encode()
        entries = [draw(random, 500, 375, AUGMENTATION) for _ in range(VIEWS)]
        base = {"__key__": uid, "jpg": image, "txt": CAPTIONS[0].encode(), "json": details}
        return encode(base, CAPTIONS[1:], entries, emb(VIEWS), emb(6))

    torch.manual_seed(0)
    write_shard(folder / "00000.tar", [sample(n, image) for n, image in enumerate(photographs(SAMPLES))])
    manifest = {"samples": SAMPLES, "shards": {"00000.tar": SAMPLES}, "augmentation": AUGMENTATION}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"teachers": TEACHERS}))


def ours(folder: Path, chosen: np.ndarray):
    """(pixels, three embeddings) of every sample, as `clipdr.data.stream` reads them."""
    import torch

    from clipdr.data.augment import replay
    from clipdr.data.rows import read_row
    from clipdr.data.shards import read_shard

    for members, (view, text) in zip(read_shard(folder / "00000.tar"), chosen, strict=True):
        row = read_row(members, 1536, torch.bfloat16)
        pixels = np.asarray(replay(row.image, row.augmentations[view], SIDE))
        yield pixels, [emb.float() for emb in (row.view(view), row.text(0), row.text(text))]


def published_way(folder: Path, chosen: np.ndarray):
    """The same as the published training reads it: everything of a sample is decoded, then one view is taken."""
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    from clipdr.data.augment import OPS, _apply
    from clipdr.data.shards import read_shard

    for members, (view, text) in zip(read_shard(folder / "00000.tar"), chosen, strict=True):
        emb = torch.load(io.BytesIO(gzip.decompress(members["pth.gz"])), weights_only=True)
        img_AE, txt_TE = emb["image_emb"].float(), emb["text_emb"].float()
        image = Image.open(io.BytesIO(members["jpg"])).convert("RGBA").convert("RGB")
        (top, left, height, width), ops = json.loads(members["paug.json"])["param_aug"][view]
        image = F.resized_crop(image, top, left, height, width, [SIDE, SIDE], InterpolationMode.BICUBIC)
        for op, magnitude in ops:
            image = _apply(image, OPS[op][0], magnitude)
        json.loads(members["syn.json"])
        F.normalize(F.to_tensor(image), [0.5] * 3, [0.5] * 3)
        yield image, [img_AE[view], txt_TE[0], txt_TE[text]]


def decode_only(images: list[bytes]):
    from PIL import Image

    for image in images:
        yield Image.open(io.BytesIO(image)).convert("RGB")


def rate(samples) -> float:
    """Samples per second."""
    start = time.perf_counter()
    number = sum(1 for _ in samples)
    return number / (time.perf_counter() - start)


def main() -> None:
    from clipdr import cli

    cli.set_threads(1)
    import torch

    from clipdr.data.rows import convert
    from clipdr.data.shards import read_shard

    random = np.random.default_rng(1)
    chosen = np.stack([random.integers(0, VIEWS, SAMPLES), random.integers(1, 6, SAMPLES)], axis=1)
    with tempfile.TemporaryDirectory() as name:
        published, rows = Path(name, "published"), Path(name, "rows")
        published.mkdir()
        write_store(published)
        convert(published, rows)
        images = [members["jpg"] for members in read_shard(published / "00000.tar")]
        for (pixels, emb), (other, stored) in zip(ours(rows, chosen), published_way(published, chosen), strict=True):
            if not np.array_equal(pixels, np.asarray(other)) or not all(map(torch.equal, emb, stored)):
                sys.exit("ours and the published way give different samples")
        turns = [
            (rate(ours(rows, chosen)), rate(published_way(published, chosen)), rate(decode_only(images)))
            for _ in range(9)
        ][1:]
        sizes = [(folder / "00000.tar").stat().st_size / SAMPLES / 1000 for folder in (published, rows)]
    mine, theirs, limit = np.median(turns, axis=0)
    print(f"samples per second: ours {mine:.0f}, the published way {theirs:.0f}, decoding alone {limit:.0f}")
    print(f"ours over the published way {mine / theirs:.2f}, over decoding alone {mine / limit:.2f}")
    mean = sum(map(len, images)) / len(images) / 1000
    print(f"kB per sample: published {sizes[0]:.0f}, rows {sizes[1]:.0f}, of which the JPEG is {mean:.0f}")


if __name__ == "__main__":
    main()
