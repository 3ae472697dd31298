"""DataCompDR in, a student out: scale `onegpu` with a small published set, whose images this machine serves."""

import json
import re
from pathlib import Path

import pytest
from clones import copy_of_the_repository
from conftest import REPO, snakemake
from published import SETTINGS, picture, serving, uid, write_tree

from clipdr.config import load_config, load_experiments
from clipdr.data.manifest import read_manifest
from clipdr.data.rows import FORM
from clipdr.data.shards import read_shard
from clipdr.reinforce.verify import verify

SMALL = {  # of the scale, so that the test takes no day
    r"reinforcements: data/\S+": "reinforcements: world/published",
    r"captions: data/\S+": "captions: world/captions",
    r"width: 768": "width: 6",
    r"(?m)^  chunks: \d+": "  chunks: 3\n  images: {threads: 4, timeout: 2, retries: 1}",
    r"size: 1280000, seed: 0, chunks: 16": "size: 9, seed: 0, chunks: 2",
    r"number: 5": "number: 2",
    r"strong: \{.*\}": f"strong: {json.dumps(SETTINGS['augmentation'])}",
    r'"ViT-B/16:Base": "ViT-B/16:Base"': '"ViT-B/16:Base": tiny',
    r"(?m)^  steps: \d+": "  steps: 2",
    r"(?m)^  batch_size: \d+": "  batch_size: 4",
    r"piece_size: \d+": "piece_size: 2",
    r"warmup: \d+": "warmup: 1",
    r"workers: \d+": "workers: 0",
    r"device: cuda": "device: cpu",
}
TINY = """preprocess_cfg: {mean: [0, 0, 0], std: [1, 1, 1], interpolation: bilinear, resize_mode: shortest}
text_cfg: {context_length: 77, vocab_size: 49408, width: 32, heads: 2}
image:
  small: {layers: 1, width: 32, head_width: 16, patch_size: 16, image_size: 32}
text:
  small: {layers: 1}
models:
  tiny: {image: small, text: small, embed_dim: 16}
"""


@pytest.mark.slow
def test_from_published_shards_to_a_student(tmp_path: Path) -> None:
    folder = copy_of_the_repository(tmp_path / "clone")
    (folder / ".venv-download").symlink_to(REPO / ".venv-download")
    scale = (folder / "config/scales/onegpu.yaml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        scale, number = re.subn(old, new, scale)
        assert number, old
    (folder / "config/scales/small.yaml").write_text(scale, encoding="utf-8")
    (folder / "config/models/tiny.yaml").write_text(TINY, encoding="utf-8")
    experiments, _ = load_experiments(folder, load_config(folder, {"scale": "small"}))
    (run,) = [run for run in experiments["mobileclip-table2"].runs if run.row == "+ ensemble teacher"]
    stored = run.artifact.inputs["rows"].inputs["reinforced"]
    with serving(folder / "world/published") as world:
        write_tree(folder / "world", world.server_port)
        targets = [f"results/{run.artifact.path}/model", f"results/{stored.path}/manifest.json"]
        done = snakemake(folder, "--cores", "2", "--config", "scale=small", "--", *targets)
    assert done.returncode == 0, done.stdout[-6000:]

    alive = [uid(n) for n in (0, 4, 7, 8, 9)]  # see `published.World`
    (pool,) = (folder / "results/pool").glob("datacomp-12m-*")
    manifest = read_manifest(pool / "shards")
    assert (manifest["in"], manifest["samples"]) == (10, 5) and sum(manifest["skipped"].values()) == 5
    store = folder / "results" / stored.path
    assert verify(store, [], 0.0) == [] and len(read_manifest(store)["shards"]) == 3
    samples = [s for shard in read_manifest(store)["shards"] for s in read_shard(store / shard)]
    assert [sample["__key__"] for sample in samples] == alive
    assert all(sample["jpg"] == picture(int(sample["__key__"], 16)) for sample in samples)
    (rows,) = (folder / "results/rows").glob("1.28M-strong-*")
    assert read_manifest(rows)["form"] == FORM and read_manifest(rows)["samples"] == 5
    log = [json.loads(line) for line in (folder / targets[0] / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 2
    subset = next((folder / "results/logs/subset").glob("*.log")).read_text()
    assert "the pool has 5 of the 9 pairs that were asked for; all are taken" in subset
