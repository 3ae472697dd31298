"""From a folder of images to a scored student: the scale of docs/own-data.md, on two photographs cut into pieces."""

import csv
import json
import re
from pathlib import Path

import pytest
from clones import copy_of_the_repository
from conftest import planned_jobs, snakemake
from PIL import Image
from sklearn.datasets import load_sample_images

from clipdr.data.manifest import read_manifest
from clipdr.data.samples import decode, decode_image
from clipdr.data.shards import read_shard

SIDE = 80
SMALL = {  # of the example, so that the test takes no hour
    r"source: \S+": "source: photos/captions.csv",
    r"held_out: \d+": "held_out: 10",
    r"size: 1000": "size: 40",
    r"suite: own ": "suite: own-labels ",
    r"IN-val: \[\]": "IN-val: [own/val]",
    r"steps: 2000": "steps: 4",
    r"warmup: 200": "warmup: 2",
    r"batch_size: (64|128)": "batch_size: 16",
    r"views: 10": "views: 2",
    r"number: 5": "number: 2",
    r"vocab_size: 2000": "vocab_size: 120",
}


def cut(folder: Path) -> None:
    """Pieces of the photographs, with a table of what they show and where they were cut."""
    folder.mkdir()
    with open(folder / "captions.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "caption", "label"])
        for label, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
            for top in range(0, photo.shape[0] - SIDE, SIDE):
                for left in range(0, photo.shape[1] - SIDE, SIDE):
                    name = f"{label}-{top}-{left}.jpg"
                    Image.fromarray(photo[top : top + SIDE, left : left + SIDE]).save(folder / name, quality=90)
                    table.writerow([name, f"a piece of a {label} at {top} and {left}", label])


@pytest.mark.slow
def test_from_images_to_a_scored_student(tmp_path: Path) -> None:
    folder = copy_of_the_repository(tmp_path / "clone")
    scale = (folder / "config/scales/own.yaml.example").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        scale, number = re.subn(old, new, scale)
        assert number, old
    (folder / "config/scales/own.yaml").write_text(scale, encoding="utf-8")
    missing = snakemake(folder, "-n", "--config", "scale=own", "--")
    assert "pool.source: photos/captions.csv does not exist; name a table" in missing.stdout
    assert "Traceback" not in missing.stdout
    cut(folder / "photos")
    assert planned_jobs(folder, "--config", "scale=own", "--")["train"] == 6  # Table 2, as the document says
    done = snakemake(folder, "--cores", "2", "--config", "scale=own", "--", "fidelity")  # fewer jobs than Table 2
    assert done.returncode == 0, done.stdout[-4000:]

    (store,) = (folder / "results/reinforced").glob("own-strong-*")
    manifest = read_manifest(store)
    members = [sample for shard in manifest["shards"] for sample in read_shard(store / shard)]
    assert len(members) == manifest["samples"] == 40
    for one in members:
        sample = decode(one)
        assert decode_image(one).size == (SIDE, SIDE) and re.match("a piece of a (temple|flower) at", sample.caption)
        assert sample.img_AE.shape == (2, 128) and sample.txt_TE.shape == (3, 128) and len(sample.synthetic) == 2
    table = (folder / "results/own/tables/mobileclip/fidelity.md").read_text(encoding="utf-8")
    assert "Held-out images and captions" in table and "Own images" in table
    evaluations = list((folder / "results/eval").glob("*/own-labels-*/scores/0-of-1/records.jsonl"))
    assert len(evaluations) == 4
    for records in evaluations:
        lines = [json.loads(line) for line in records.read_text().splitlines()]
        assert [line["key"] for line in lines] == ["own/retrieval", "own/val"]
    assert (folder / "results/own/figures/mobileclip/fidelity.png").is_file()


PUBLISHED = """zoo:
  kind: published
  teachers:
    datacomp: {model: ViT-L-14, pretrained: datacomp_xl_s13b_b90k}
    openai: {model: ViT-L-14, pretrained: openai}
  captioner: {model: coca_ViT-L-14, pretrained: mscoco_finetuned_laion2b_s13b_b90k}

"""


def test_published_teachers_take_the_place_of_trained_ones(tmp_path: Path) -> None:
    """Up to where weights are fetched, for a student that has CLIP's own tokenizer."""
    folder = copy_of_the_repository(tmp_path / "clone")
    scale = (folder / "config/scales/own.yaml.example").read_text(encoding="utf-8")
    scale = re.sub(r"zoo:\n(.*\n)*?(?=datasets:)", PUBLISHED, scale)
    scale = scale.replace("[resnet, efficientnet]", "[datacomp, openai]").replace("[resnet]", "[datacomp]")
    scale = scale.replace(": mini-student", ': "ViT-B/16:Base"').replace("my-images", "photos")
    (folder / "config/scales/own.yaml").write_text(scale, encoding="utf-8")
    cut(folder / "photos")
    jobs = planned_jobs(folder, "--config", "scale=own", "--")
    assert jobs["published"] == 3 and jobs["train"] == 6
    assert not {"tokenizer", "teacher", "captioner"} & jobs.keys()
