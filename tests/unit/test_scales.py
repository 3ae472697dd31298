"""Every experiment at every scale: it resolves, or the scale says why not. And what the paper's scales ask for."""

import re
from pathlib import Path

import pytest

from clipdr.artifacts import all_of
from clipdr.config import experiment_files, load_config, load_experiments, load_scale
from clipdr.schema import load_yaml

REPO = Path(__file__).parents[2]
SCALES = sorted(path.stem for path in (REPO / "config/scales").glob("*.yaml"))


@pytest.fixture(scope="module")
def planned():
    return {scale: load_experiments(REPO, load_config(REPO, {"scale": scale})) for scale in SCALES}


@pytest.mark.parametrize("scale", SCALES)
def test_an_experiment_resolves_or_the_scale_says_why_not(planned, scale):
    fit, misfits = planned[scale]
    assert fit.keys() | misfits.keys() == experiment_files(REPO).keys()
    said = load_scale(REPO, scale).get("undefined", {}).keys()
    assert misfits.keys() == {key for key in experiment_files(REPO) if {key, key.partition("-")[0]} & said}


def test_the_papers_scales_train_on_what_the_paper_says(planned):
    """Section 5: 12.8M pairs in batches of 8,192 for 30-45k iterations; batches of 65,536 for 200k iterations."""
    usual = {}
    for scale in ("paper12m", "paper1b"):
        run = planned[scale][0]["mobileclip-table2"].runs[-1]
        training, made = run.settings["training"], all_of([run.artifact])
        sizes = [one.settings["size"] for one in made.values() if one.stage == "subset"]
        usual[scale] = (training["batch_size"], training["steps"], sizes)
        (stored,) = [one for one in made.values() if one.stage == "reinforced"]
        assert [teacher["name"] for teacher in stored.settings["teachers"]] == ["openai", "datacomp"]
        assert not [one for one in made.values() if one.stage in ("zoo", "captions")]  # all is published
    assert usual == {"paper12m": (8192, 30000, [12_800_000]), "paper1b": (65536, 200_000, [12_800_000])}
    seen = {
        run.row: run.settings["training"]["batch_size"] * run.settings["training"]["steps"] / 1e9
        for run in planned["paper12m"][0]["mobileclip-figure6a"].runs
    }
    for row, billions in seen.items():
        assert billions == pytest.approx(float(row.rpartition(" ")[2].rstrip("B")), abs=0.01)


def test_views_that_are_not_published_are_embedded_by_the_papers_teachers(planned):
    """Light augmentation with distillation, of the published captions and the images that are there."""
    (run,) = [run for run in planned["paper12m"][0]["mobileclip-table2"].runs if run.row == "+ distillation"]
    made = all_of([run.artifact]).values()
    assert {one.settings["pretrained"] for one in made if one.stage == "zoo"} == {"openai", "datacomp_xl_s13b_b90k"}
    (captions,) = [one for one in made if one.stage == "captions"]
    assert captions.settings == {"number": 5} and captions.inputs.keys() == {"pool", "subset"}


def test_a_baseline_draws_fresh_light_views_and_distillation_reads_stored_ones(planned):
    views = {}
    for run in planned["paper12m"][0]["mobileclip-table2"].runs:
        (stored,) = [one for one in all_of([run.artifact]).values() if one.stage == "reinforced"]
        views[run.row] = stored.settings["augmentation"]["views"]
    assert views["real captions only"] == views["+ synthetic captions"] == 0
    assert views["+ distillation"] == views["+ strong augmentation"] == 30


def test_a_partition_of_the_slurm_profile_has_room_for_the_last_attempt_of_every_job():
    """Time grows with each attempt: a job that fits nowhere would never start."""
    profile, limits = (load_yaml(REPO / f"profiles/slurm/{name}.yaml") for name in ("profile", "partitions"))
    room = max(partition["max_runtime"] for partition in limits["partitions"].values())
    rules = "".join(path.read_text() for path in (REPO / "workflow/rules").glob("*.smk"))
    asked = [int(minutes) for minutes in re.findall(r"\*\*asks\(.*?runtime=(\d+)", rules)]
    scales = [load_yaml(path) for path in (REPO / "config/scales").glob("*.yaml")]
    asked += [rule.get("runtime", 0) for scale in scales for rule in scale.get("resources", {}).values()]
    assert len(asked) > 25 and max(asked) * (1 + profile["retries"]) <= room


def test_clip_kd_at_the_papers_scale(planned):
    """32 epochs of 12.86M pairs; baselines and online teachers draw fresh views, others read stored ones."""
    fit, _ = planned["paper15m"]
    made = {}
    for name in ("clipkd-pairs", "clipkd-views"):
        for run in fit[name].runs:
            (data,) = [one for one in all_of([run.artifact]).values() if one.stage == "reinforced"]
            names = [teacher["name"] if isinstance(teacher, dict) else teacher for teacher in data.settings["teachers"]]
            made[run.row] = (data.settings["augmentation"]["views"], names, run.settings["training"]["betas"])
            training = run.settings["training"]
            assert training["steps"] * training["batch_size"] / 12.86e6 == pytest.approx(32, rel=1e-3)
    assert made["ViT-T/16 alone"] == (0, [], [0.9, 0.98])
    assert made["Swin-T from ViT-B/16"] == (10, ["vit-b16", "rn101"], [0.9, 0.999])
    assert made["ViT-B/16 from ViT-L/14 of LAION-400M"] == (10, ["laion-vit-l14"], [0.9, 0.98])
    assert made["fresh views, teacher online"] == (0, [], [0.9, 0.98])
    assert len(made) == 26 and not [row for row in fit["clipkd-pairs"].experiment["rows"] if "settings" not in row]


def test_dime_fm_at_the_papers_scale(planned):
    """100 epochs of 40M images; teachers have seen whole images, and corpora are embedded by the run's teachers."""
    fit, misfits = planned["paper40m"]
    assert not [name for name in misfits if name.startswith("dimefm")]
    runs = {run.row: run for run in fit["dimefm-headline"].runs}
    assert "OpenAI CLIP-ViT-B/32" not in runs, "its published values stand alone"
    run = runs["Distill-ViT-B/32, constructed corpus"]
    training, made = run.settings["training"], all_of([run.artifact])
    assert training["steps"] * training["batch_size"] / 40e6 == pytest.approx(100)
    (stored,) = [one for one in made.values() if one.stage == "reinforced"]
    assert stored.settings["augmentation"]["teachers_see"] == "image"
    assert run.artifact.inputs["text_tower"].settings == {"model": "ViT-L-14", "pretrained": "openai"}
    (corpus,) = [one for one in made.values() if one.stage == "corpora"]
    assert corpus.settings["method"] == "constructed" and corpus.settings["teachers"] == ["clip-vit-l14"]
    assert [one.stage for one in corpus.inputs["texts"]] == ["embedded"] and "images" in corpus.inputs
    (two,) = [run for run in fit["dimefm-reinforced"].runs if run.row == "two teachers"]
    assert len(two.artifact.inputs["corpus"].inputs["texts"]) == 2
