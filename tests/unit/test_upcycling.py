"""Runs of mixtures of experts: where their weights start, what they log, how they go on, and what they compute."""

import copy
import json
import math
import signal
from pathlib import Path

import pytest
import torch
from refusals import refused
from safetensors.torch import save_file
from small import in_processes, run_settings
from test_loop import RECIPE, batch_of, gradients, objective_of
from torch import nn

from clipdr.deploy import work
from clipdr.deploy.counts import count
from clipdr.deploy.export import export
from clipdr.errors import UserError
from clipdr.losses import clip
from clipdr.mixtures import TOWERS, dense, with_mixture
from clipdr.models.folder import WEIGHTS, random_model, save_weights, write_folder
from clipdr.models.load import load_model
from clipdr.models.moe import MixtureOfExperts, mixtures_of
from clipdr.report.work import with_work
from clipdr.schema import defaults
from clipdr.train.checkpoint import MOMENTS
from clipdr.train.log import read_log
from clipdr.train.parallel import join, leave, wrap
from clipdr.train.run import train
from clipdr.train.schedule import build_optimizer, decays
from clipdr.train.start import start_from, take_moments
from clipdr.train.student import Student
from clipdr.train.watch import warn_of_dead_experts

MIXTURE = defaults("mixture") | {"experts": 4}


@pytest.fixture(scope="module")
def dense_config(model_config):
    """The tests' student with a second block, which may be a mixture."""
    config = copy.deepcopy(model_config)
    for tower in TOWERS.values():
        config["model_cfg"][tower]["layers"] = 2
    return config


@pytest.fixture(scope="module")
def sparse_config(dense_config):
    return with_mixture(dense_config, MIXTURE)


def contrastive(config: dict, **training) -> dict:
    settings = run_settings(config)
    settings["training"] |= {"keep_optimizer": True, **training}
    return settings | {
        "objective": {"name": "clip"},
        "data": {**settings["data"], "captions": ["real"]},
    }


def upcycled(config: dict, how: dict, **training) -> dict:
    weights = {"balance": 0.1, "z": 0.01, "entropy": 0.0}
    return contrastive(config, **training) | {"init": {"run": "dense", **how}, "mixture": weights}


@pytest.fixture(scope="module")
def before(tmp_path_factory, dense_config, views_dir, tokenizer):
    """A finished dense run."""
    output = tmp_path_factory.mktemp("dense") / "model"
    train(contrastive(dense_config), views_dir, output, tokenizer)
    return output


def folder_of(config: dict, tokenizer: Path, folder: Path, seed: int = 0) -> Path:
    write_folder(config, tokenizer, folder)
    save_weights(random_model(config, seed, str(folder)), folder)
    return folder


# ---- where weights start


def test_an_upcycled_run_begins_as_the_dense_one_ended(before, sparse_config, views_dir, tokenizer, tmp_path):
    """At a learning rate of nothing it still is the dense model, in evaluation, from its own folder."""
    settings = upcycled(sparse_config, {}, steps=1, lr=1e-12, warmup=0)
    train(settings, views_dir, tmp_path / "model", tokenizer, init=before)
    old, new = load_model(before), load_model(tmp_path / "model")
    batch = batch_of()
    img = batch.images["image"].float() / 255
    with torch.no_grad():
        torch.testing.assert_close(new.encode_image(img), old.encode_image(img), rtol=1e-5, atol=1e-5)
        text = new.encode_text(batch.texts["real"])
        torch.testing.assert_close(text, old.encode_text(batch.texts["real"]), rtol=1e-5, atol=1e-5)
        alone = torch.cat([new.encode_text(tokens[None]) for tokens in batch.texts["real"]])
    torch.testing.assert_close(text, alone, rtol=1e-5, atol=1e-5)
    assert len(list(mixtures_of(new))) == 2 and new.logit_scale == old.logit_scale


def test_a_run_may_go_on_from_a_mixture_or_from_published_weights(before, sparse_config, tokenizer, tmp_path):
    first = folder_of(sparse_config, tokenizer, tmp_path / "first", 3)
    model = random_model(sparse_config, 0, "x")
    start_from(model, first, first, {}, 0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), load_model(first).state_dict().values(), strict=True)
    )
    published = tmp_path / "published"
    write_folder(json.loads((before / "open_clip_config.json").read_text()), tokenizer, published)
    weights = torch.load(before / WEIGHTS, weights_only=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, published / "open_clip_model.safetensors"
    )
    start_from(model, published, first, {}, 0)
    assert torch.equal(model.visual.proj, weights["visual.proj"])


def test_where_a_run_cannot_start(before, dense_config, sparse_config, model_config, tokenizer, tmp_path):
    sparse = folder_of(sparse_config, tokenizer, tmp_path / "sparse")
    other = folder_of(with_mixture(dense_config, MIXTURE | {"experts": 3}), tokenizer, tmp_path / "other")
    shallow = folder_of(model_config, tokenizer, tmp_path / "shallow")
    model = random_model(sparse_config, 0, "x")
    for init, says in (
        (other, "is a mixture of other experts than the one"),
        (shallow, "is another model than the one"),
    ):
        assert says in refused(start_from, model, init, sparse, {}, 0)
    plain = random_model(dense_config, 0, "x")
    assert "is a mixture of other experts" in refused(start_from, plain, sparse, before, {}, 0), "no way back"
    optimizer = build_optimizer(model, RECIPE)
    assert "needs training.keep_optimizer" in refused(take_moments, optimizer, model, sparse)


def test_moments_go_to_each_expert(before, sparse_config):
    model = random_model(sparse_config, 0, "x")
    optimizer = build_optimizer(model, RECIPE)
    take_moments(optimizer, model, before)
    saved = torch.load(before / MOMENTS, weights_only=True)
    block = "visual.transformer.resblocks.1.mlp"
    parameters = dict(model.named_parameters())
    first = optimizer.state[parameters[f"{block}.weight_in"]]
    for expert in range(4):
        assert torch.equal(first["exp_avg"][expert], saved[f"{block}.c_fc.weight"]["exp_avg"].T)
    assert torch.equal(
        optimizer.state[parameters[f"{block}.bias_out"]]["exp_avg_sq"][2, 0],
        saved[f"{block}.c_proj.bias"]["exp_avg_sq"],
    )
    assert first["step"] == 8 and torch.equal(
        optimizer.state[parameters["visual.proj"]]["exp_avg"], saved["visual.proj"]["exp_avg"]
    )
    assert parameters[f"{block}.router.weight"] not in optimizer.state, "a router is new"
    model(torch.rand(2, 3, 32, 32), batch_of(2).texts["real"])[0].sum().backward()
    optimizer.step()  # what was taken over is what the optimizer needs


def test_a_run_that_goes_on_with_its_moments_is_the_run_that_did_not_stop(before, dense_config):
    """A step of AdamW after the moments were taken over, against one of the same optimizer."""
    model = load_model(before)
    other = copy.deepcopy(model)
    optimizers = [build_optimizer(one, RECIPE) for one in (model, other)]
    take_moments(optimizers[0], model, before)
    saved = torch.load(before / MOMENTS, weights_only=True)
    by_hand = optimizers[1]
    for name, parameter in other.named_parameters():
        by_hand.state[parameter] = {key: value.clone() for key, value in saved[name].items()}
    for one, optimizer in zip((model, other), optimizers, strict=True):
        one(torch.ones(2, 3, 32, 32), batch_of(2).texts["real"])[0].sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


# ---- training


def test_a_mixture_logs_its_routing_and_its_losses(before, sparse_config, views_dir, tokenizer, tmp_path, caplog):
    settings = upcycled(sparse_config, {"optimizer": True, "noise": 0.1})
    train(settings, views_dir, tmp_path / "model", tokenizer, init=before)
    records = read_log(tmp_path / "model/log.jsonl")
    for tower in ("image", "text"):
        where = f"routing/{tower}.1"
        for record in records:
            assert sum(record[f"{where}/load/{expert}"] for expert in range(4)) == pytest.approx(1, abs=1e-5)
            assert 0 <= record[f"{where}/dropped"] < 1 and 0 < record[f"{where}/entropy"] <= math.log(4) + 1e-6
            assert record[f"z/{tower}"] == pytest.approx(0.01 * record[f"{where}/z"], abs=2e-6)
            assert record[f"balance/{tower}"] >= 0.05 and f"entropy/{tower}" not in record
    parts = [f"{loss}/{tower}" for loss in ("balance", "z") for tower in TOWERS]
    assert records[0]["loss"] == pytest.approx(sum(records[0][part] for part in ["real/clip", *parts]), abs=1e-5)
    warn_of_dead_experts("a run", {"routing/image.1/load/3": 0.0, "routing/image.1/load/2": 0.5, "loss": 0.0})
    assert "no token of the last step chose these experts: image.1/load/3" in caplog.text


def kill(settings: dict, data: Path, tokenizer: Path, init: Path, output: Path, step: int) -> None:
    """Train, with every step saved, and die in a step; 0 for none."""
    import os

    from clipdr.train import checkpoint, loop

    loop.SAVE_EVERY_SECONDS, saved, count = -1.0, checkpoint.save, iter(range(1, 100))

    def save(*args) -> None:
        saved(*args)
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save = save
    train(settings, data, output, tokenizer, init=init)


@pytest.mark.slow
def test_a_killed_mixture_goes_on_as_if_it_had_not_been(before, sparse_config, views_dir, tokenizer, tmp_path):
    settings = upcycled(sparse_config, {"optimizer": True, "renewed": 0.5})
    args = (settings, views_dir, tokenizer, before)
    assert in_processes(1, kill, *args, tmp_path / "killed", 3) == [-signal.SIGKILL]
    assert (
        in_processes(1, kill, *args, tmp_path / "killed", 0)
        == in_processes(1, kill, *args, tmp_path / "whole", 0)
        == [0]
    )
    for name in (WEIGHTS, MOMENTS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def rigged(config: dict) -> Student:
    """A student whose tokens choose experts 0 and 1, or 3 and 4, by a sign, and never expert 2; with room for all."""
    model = random_model(config, 0, "rigged")
    for mixture in mixtures_of(model):
        direction = torch.randn(mixture.router.in_features, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            mixture.router.weight.copy_(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None] * direction)
            for weight in (mixture.weight_in, mixture.weight_out):
                weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    return Student(model, RECIPE, auxiliary={"balance": 0.0, "z": 0.1, "entropy": 0.0}).train()


def share(processes: int, config: dict, folder: Path) -> None:
    """What one of several processes finds for its part of the batch."""
    world = join("cpu", processes)
    whole, rows = batch_of(), slice(world.rank * 4, (world.rank + 1) * 4)
    mine = whole.map(lambda tensor: tensor[rows])
    student, objective = wrap(rigged(config), world), wrap(objective_of(clip), world)
    torch.save(gradients(student, objective, mine, 0, world), folder / f"{world.rank}.pt")
    leave()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_whatever_experts_get_no_token(dense_config, tmp_path):
    config = with_mixture(dense_config, MIXTURE | {"experts": 5, "capacity": 5.0})
    student = rigged(config)
    parts, whole = gradients(student, objective_of(clip), batch_of())
    for mixture in mixtures_of(student):
        assert mixture.load[2] == 0 and mixture.dropped == 0 and min(mixture.load[[0, 1, 3, 4]]) > 0
    assert in_processes(2, share, 2, config, tmp_path) == [0, 0]
    for rank in range(2):
        _, grads = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, gradient in whole.items():
            torch.testing.assert_close(grads[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    unused = [gradient[2] for name, gradient in whole.items() if "weight_in" in name]
    assert len(unused) == 2 and not any(gradient.any() for gradient in unused)


@pytest.mark.parametrize("piece_size", [2, 4])
def test_a_batch_in_pieces_has_the_gradients_of_the_whole(piece_size, dense_config):
    """With room for all choices, and without losses over tokens, which a piece has fewer of."""
    config = with_mixture(dense_config, MIXTURE | {"capacity": 4.0})
    student = Student(
        random_model(config, 0, "x"), RECIPE, auxiliary={"balance": 0.0, "z": 0.0, "entropy": 0.0}
    ).train()
    _, whole = gradients(student, objective_of(clip), batch_of())
    _, pieces = gradients(student, objective_of(clip), batch_of(), piece_size)
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "change, tolerance", [({"checkpointing": True}, 1e-5), ({"precision": "bfloat16"}, 0.05)], ids=str
)
def test_ways_to_compute_the_same(change, tolerance, sparse_config):
    found = []
    for settings in ({}, change):
        student = Student(random_model(sparse_config, 0, "x"), RECIPE | settings, auxiliary={"balance": 0.1, "z": 0.1})
        student.auxiliary["entropy"] = 0.1
        parts, grads = gradients(student.train(), objective_of(clip), batch_of())
        assert parts.keys() >= {f"{loss}/{tower}" for loss in ("balance", "z", "entropy") for tower in TOWERS}
        found.append((sum(parts.values()), torch.cat([grad.flatten() for grad in grads.values()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=tolerance)
    assert nn.functional.cosine_similarity(found[0][1], found[1][1], dim=0) > 1 - 4 * tolerance


def test_experts_and_routers_decay_and_their_biases_do_not(sparse_config):
    model = random_model(sparse_config, 0, "x")
    for mixture in mixtures_of(model):
        assert [decays(mixture, name, p) for name, p in mixture.named_parameters(recurse=False)] == [True, False] * 2
        assert decays(mixture.router, "weight", mixture.router.weight)


# ---- what it has to compute


def test_half_of_the_blocks_with_two_experts_per_token_give_the_papers_thirty_percent():
    """B/16 against L/14: 6 of 12 blocks in both towers, or in the image tower alone; no other reading fits."""
    b16, l14, upcycled = count("CLIP-UP:B/16"), count("CLIP-UP:L/14"), count("CLIP-UP:B/16:upcycled")
    gmacs = {one["network"]: sum(one[tower]["gmacs"] for tower in TOWERS) for one in (b16, l14, upcycled)}
    assert gmacs["CLIP-UP:B/16"] == pytest.approx(20.54, abs=0.01) and gmacs["CLIP-UP:L/14"] == pytest.approx(
        87.66, abs=0.01
    )

    def share(layers: int, choices: float, towers: tuple[str, ...] = ("image", "text")) -> float:
        tokens, width = {"image": 197, "text": 77}, {"image": 768, "text": 512}
        mlps = sum(layers * tokens[tower] * 8 * width[tower] ** 2 for tower in towers) / 1e9
        return (gmacs["CLIP-UP:B/16"] + (choices - 1) * mlps) / gmacs["CLIP-UP:L/14"]

    assert share(6, 2) == pytest.approx(0.309, abs=5e-4) and share(6, 2, ("image",)) == pytest.approx(0.298, abs=5e-4)
    assert share(12, 2) == pytest.approx(0.384, abs=5e-4) and share(6, 1) == pytest.approx(0.234, abs=5e-4)
    routers = 8 * 6 * (197 * 768 + 77 * 512) / 1e9
    assert gmacs["CLIP-UP:B/16:upcycled"] == pytest.approx(share(6, 2) * gmacs["CLIP-UP:L/14"] + routers, rel=1e-6)
    more = sum(upcycled[tower]["params"] - b16[tower]["params"] for tower in TOWERS)
    active = sum(upcycled[tower]["params_active"] - b16[tower]["params"] for tower in TOWERS)
    experts = 6 * sum(8 * width**2 + 5 * width for width in (768, 512))
    assert more == 7 * experts + 6 * 8 * (768 + 512) and more / 1e6 == pytest.approx(286, abs=1)
    assert active == experts + 6 * 8 * (768 + 512)
    assert all(b16[tower]["params_active"] == b16[tower]["params"] for tower in TOWERS)


def test_counted_work_is_what_a_mixture_runs(sparse_config):
    """Multiplications of the layer itself, on tokens that all choose and that no expert has too many of."""
    from torch.utils.flop_counter import FlopCounterMode

    model = random_model(sparse_config, 0, "x")
    mixture = next(mixtures_of(model.visual)).train()
    tokens, width, hidden = 64, 32, 128
    with FlopCounterMode(display=False) as counter:
        mixture(torch.randn(tokens, width))
    by_hand = tokens * (2 * 2 * width * hidden + 4 * width)
    assert counter.get_total_flops() // 2 == by_hand


def test_work_of_a_tables_rows(dense_config, sparse_config, tmp_path):
    narrow = with_mixture(dense_config, MIXTURE | {"capacity": 1.0})
    rows = [
        ("dense", dense_config, 1),
        ("two texts", dense_config, 2),
        ("upcycled", sparse_config, 1),
        ("tight", narrow, 1),
    ]
    settings = {"rows": [{"row": row, "config": config, "texts": texts} for row, config, texts in rows]}
    work.measure(settings, tmp_path / "work/x/work.json")
    found = json.loads((tmp_path / "work/x/work.json").read_text())
    assert found["dense"]["sample_gmacs"] == pytest.approx(3 * found["dense"]["gmacs"])
    assert (
        found["dense"]["gmacs"] == found["two texts"]["gmacs"] < found["upcycled"]["gmacs"] == found["tight"]["gmacs"]
    )
    one = {"image": 5, "text": 12}
    experts = sum(tokens * (8 * 32**2 + 4 * 32) for tokens in one.values()) / 1e9
    assert found["upcycled"]["gmacs"] - found["dense"]["gmacs"] == pytest.approx(experts)
    assert found["tight"]["sample_gmacs"] < found["upcycled"]["sample_gmacs"]
    report = {
        "work": "work/x/work.json",
        "runs": [{"row": "dense", "seed": 0, "seen samples": 10}, {"row": "zoo", "seed": 0}],
    }
    told = with_work(report, tmp_path)
    assert told["runs"][0]["training GMACs"] == pytest.approx(10 * found["dense"]["sample_gmacs"])
    assert told["runs"][1] == {"row": "zoo", "seed": 0} and told["work"]["GMACs"] == {"dense": found["dense"]["gmacs"]}
    (tmp_path / "work/x/work.json").write_text("{}")
    assert "work.json: cannot be read" in refused(with_work, report, tmp_path)


def test_a_configuration_without_its_mixture_is_the_dense_one(dense_config, sparse_config):
    assert dense(sparse_config["model_cfg"]) == dense_config["model_cfg"] != sparse_config["model_cfg"]
    image = with_mixture(dense_config, MIXTURE | {"towers": ["image"]})
    model = random_model(image, 0, "x")
    assert [len(list(mixtures_of(tower))) for tower in (model.visual, model.text)] == [1, 0]
    with pytest.raises(UserError, match="x: text_cfg.moe.first is 2, and there are 2 blocks"):
        random_model(with_mixture(dense_config, MIXTURE | {"first": 2, "towers": ["text"]}), 0, "x")


def test_what_is_exported_is_what_is_computed(sparse_config):
    """Every expert on every token, as an exported program has it, gives what the routed layer gives."""
    layer = next(mixtures_of(random_model(sparse_config, 0, "x").visual)).eval()
    assert isinstance(layer, MixtureOfExperts)
    x = torch.randn(2, 5, 32)
    program = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(program(x), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_both_towers_of_a_mixture_are_exported(tmp_path):
    """ONNX Runtime gives torch's embeddings, or there is no file; Core ML has all weights of all experts."""
    report = export("mini-vit-clipup-upcycled", tmp_path / "exported")
    params = count("mini-vit-clipup-upcycled")
    for tower in TOWERS:
        assert report[tower]["params"] == params[tower]["params"] > params[tower]["params_active"]
        assert report[tower]["onnx"]["max_relative_error"] < 1e-5
        assert (tmp_path / f"exported/{tower}.mlpackage").is_dir()
