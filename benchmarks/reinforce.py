"""What reinforcing a dataset costs, and that no stage holds what grows with it.

    python benchmarks/reinforce.py

Each stage works on one chunk of 2 and of 20 shards of 50 images, in a process of its own, with captioner and one
teacher of the miniature (random weights) and views as many as it stores; the subset is sampled from an index of 100,000
and of 2,000,000 lines, in as many chunks as keep a chunk's size.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD, SIDE = 50, 64
SIZES = (2, 20)  # shards
LINES = {100_000: 2, 2_000_000: 40}  # of an index -> chunks
CAPTIONS = {"number": 5, "top_p": 0.9, "temperature": 1.0, "max_tokens": 15, "min_tokens": 2, "redraws": 3, "seed": 0}
STRONG = {"views": 10, "image_size": 48, "crop_scale": [0.8, 1.0], "num_ops": 2, "magnitude": 9, "seed": 0}


def memory() -> int:
    """Peak memory of this process so far, MB; getrusage would count its parent's before the program was started."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def write_zoo(folder: Path) -> None:
    from clipdr.model_files import load_models
    from clipdr.models.folder import random_model, save_weights, write_folder
    from clipdr.zoo.tokenizer import train_tokenizer

    models = load_models(Path(__file__).parents[1])
    words = [f"a picture of thing number {n}" for n in range(500)]
    train_tokenizer(words, 1000, folder / "tokenizer")
    for name in ("mini-captioner", "mini-teacher-resnet"):
        write_folder(models[name], folder / "tokenizer", folder / name)
        save_weights(random_model(models[name], 0, name), folder / name)


def write_images(folder: Path, shards: int) -> None:
    import io

    import numpy as np
    from PIL import Image

    from clipdr.files import sha256
    from clipdr.pool.layout import write_pool

    def samples():
        for n in range(shards * SHARD):
            stream = io.BytesIO()
            pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((SIDE, SIDE)).save(stream, "jpeg", quality=90)
            text, image = f"thing number {n % 500}", stream.getvalue()
            record = {"uid": sha256(str(n).encode())[:32], "caption": text, "texts": [text], "label": None}
            yield record | {"sha256": sha256(image)}, {"jpg": image}

    folder.mkdir(parents=True)
    write_pool(folder, samples(), SHARD)


def write_index(path: Path, lines: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clipdr.files import sha256

    with pq.ParquetWriter(path, pa.schema({name: pa.string() for name in ("uid", "shard", "sha256")})) as writer:
        for start in range(0, lines, 50_000):
            uids = [sha256(str(n).encode())[:32] for n in range(start, start + 50_000)]
            shards = [f"{n // 1000:08d}.tar" for n in range(start, start + 50_000)]
            writer.write_table(pa.table({"uid": uids, "shard": shards, "sha256": [uid * 2 for uid in uids]}))


def stage(name: str, folder: Path, size: int) -> None:
    """Run a stage in this process and print its seconds and its peak memory as JSON."""
    from clipdr import cli

    cli.set_threads(1)
    import pandas as pd

    from clipdr.data.rows import convert
    from clipdr.data.subset import sample
    from clipdr.reinforce.captions import caption
    from clipdr.reinforce.embed import reinforce

    pool, made, zoo = folder / f"pool-{size}", folder / f"made-{size}", folder / "zoo"
    start = time.perf_counter()
    if name == "subset":
        sample(folder / f"index-{size}.parquet", size // 2, 0, LINES[size], made)
    if name == "caption":
        caption(pool, pd.read_parquet(pool / "index.parquet"), zoo / "mini-captioner", CAPTIONS, made / "captions")
    if name == "embed":
        settings, index = {"augmentation": STRONG, "teachers": ["resnet"]}, pd.read_parquet(pool / "index.parquet")
        teachers = [zoo / "mini-teacher-resnet"]
        reinforce(pool, index, made / "captions", teachers, settings, made / "reinforced")
    if name == "rows":
        convert(made / "reinforced", made / "rows")
    print(json.dumps({"seconds": time.perf_counter() - start, "memory": memory()}))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_zoo(folder / "zoo")
        for lines in LINES:
            write_index(folder / f"index-{lines}.parquet", lines)
        for shards in SIZES:
            write_images(folder / f"pool-{shards}", shards)
        work = [("subset", tuple(LINES)), *((stage, SIZES) for stage in ("caption", "embed", "rows"))]
        print("| stage | samples | samples/s | peak memory (MB) |\n|---|---|---|---|")
        for stage, sizes in work:
            for size in sizes:
                command = [sys.executable, __file__, stage, name, str(size)]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                samples = size if stage == "subset" else size * SHARD
                print(f"| {stage} | {samples} | {samples / found['seconds']:.0f} | {found['memory']} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        stage(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    elif len(sys.argv) == 1:
        main()
    else:
        sys.exit(__doc__)
