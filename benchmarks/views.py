"""What materialised views save: a training batch read from views against the same batch replayed from shards.

    python benchmarks/views.py results/reinforced/<dataset> results/views/<views>/arrays results/runs/<run>/model

Both are set against one training step of a student on that batch, measured in the same process on one thread.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

BATCH, ROUNDS = 64, 20


def seconds(work) -> float:
    """Median wall time of `work()` over `ROUNDS` calls, after one that is not counted."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def main(reinforced: Path, views_dir: Path, model_dir: Path) -> None:
    from clipdr import cli

    cli.set_threads(1)
    import torch

    from clipdr.data.augment import replay
    from clipdr.data.samples import decode
    from clipdr.data.shards import read_shard
    from clipdr.data.views import load_views
    from clipdr.losses.clip import clip_loss
    from clipdr.models.folder import load_tokenizer
    from clipdr.models.load import load_model

    views, rng = load_views(views_dir, []), np.random.default_rng(0)
    manifest = json.loads((reinforced / "manifest.json").read_text())
    shard = [reinforced / name for name in manifest["shards"]]
    encoded = [sample for path in shard for sample in read_shard(path)][:BATCH]
    rows, view = rng.integers(len(views), size=BATCH), rng.integers(views.img_NACSS.shape[1], size=BATCH)
    size = views.img_NACSS.shape[-1]

    def from_views():
        return torch.from_numpy(np.ascontiguousarray(views.img_NACSS[rows, view])).float() / 255

    def from_shards():
        samples = [decode(sample) for sample in encoded]
        return [np.asarray(replay(s.image, s.augmentations[v], size)) for s, v in zip(samples, view, strict=False)]

    model = load_model(model_dir).train()
    tokens = load_tokenizer(model_dir).cut([views.texts[row][0] for row in rows])
    img = from_views()

    def step():
        img_BD, txt_BD = model.encode_image(img, normalize=True), model.encode_text(tokens, normalize=True)
        clip_loss(img_BD, txt_BD, model.logit_scale.exp(), slice(None)).backward()
        model.zero_grad()

    cost = {
        "training step": seconds(step),
        "batch from views": seconds(from_views),
        "batch replayed": seconds(from_shards),
    }
    print(
        f"torch {torch.__version__}, 1 thread, batch {BATCH} ({len(encoded)} replayed), {size} px, median of {ROUNDS}"
    )
    for name, value in cost.items():
        print(f"{name:18s} {1000 * value:8.1f} ms  {value / cost['training step']:6.2f} of a training step")
    print(f"largest RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
