"""The parts of the loop: schedule and weight decay against formulas, pieces and processes against the whole batch."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small import in_processes, new_model
from torch import nn
from torch.nn.functional import normalize

from clipdr.batch import Batch, Teacher
from clipdr.errors import UserError
from clipdr.losses import clip, clip_kd, reinforced
from clipdr.model_files import load_models
from clipdr.models.build import build
from clipdr.schema import REPOSITORY, defaults
from clipdr.train.checkpoint import ladder_steps
from clipdr.train.log import read_log
from clipdr.train.loop import fit
from clipdr.train.parallel import World, join, leave, shared_statistics, wrap
from clipdr.train.schedule import build_optimizer, decays, learning_rate
from clipdr.train.step import backward
from clipdr.train.student import Student

ALONE = World(0, 1, torch.device("cpu"))
RECIPE = defaults("training") | {"steps": 12, "batch_size": 8, "lr": 0.01, "min_lr": 0.0, "warmup": 0}
RECIPE |= {"weight_decay": 0.1, "betas": [0.9, 0.95], "grad_clip": 1.0, "seed": 0}
REINFORCED = {"lambda": 0.6, "teachers": ["a"], "fidelity": "paper"}
# Without masked features, whose patches are drawn for a piece, or a process, at a time.
CLIP_KD = {"teachers": ["a"], "clip": 1.0, "crd": 1.0, "fd": 2.0, "mfd": 0.0, "gd": 0.1, "icl": 0.5, "afd": 0.25}
CLIP_KD |= {"projection": True, "fidelity": "paper"}

FEATURES = CLIP_KD | dict.fromkeys(("clip", "crd", "gd", "icl", "afd"), 0.0)


def batch_of(size: int = 8, seed: int = 0) -> Batch:
    """Random images, tokens and a teacher's embeddings."""
    random = torch.Generator().manual_seed(seed)
    img = torch.randint(256, (size, 3, 32, 32), generator=random, dtype=torch.uint8)
    texts = {kind: torch.randint(4, 300, (size, 12), generator=random) for kind in ("real", "syn")}
    for tokens in texts.values():
        tokens[:, 0], tokens[:, -1] = 1, 2
    emb = [normalize(torch.randn(size, 6, generator=random), dim=1) for _ in range(3)]
    teacher = Teacher({"image": emb[0]}, {"real": emb[1], "syn": emb[2]}, 20.0)
    return Batch([str(n) for n in range(size)], {"image": img}, texts, {"a": teacher})


def objective_of(module, settings: dict = {}) -> nn.Module:  # noqa: B006  read alone
    """For the embeddings of `student_of` and `batch_of`; the same whenever it is asked for."""
    torch.manual_seed(0)
    return module.Objective(settings, 16, {"a": 6})


def student_of(model_config, tokenizer, folder, **settings) -> Student:
    model, _ = new_model(model_config, tokenizer, folder, 0)
    return Student(model, RECIPE | settings).train()


def gradients(student, objective, batch, piece_size=0, world=ALONE) -> tuple[dict, dict]:
    """The parts of the loss, and the gradient of each parameter."""
    student.zero_grad()
    parts, _ = backward(student, objective, batch, piece_size, 5, world)
    inner = getattr(student, "module", student)
    return {name: float(part) for name, part in parts.items()}, {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in inner.named_parameters()
    }


def test_learning_rate_is_the_formula():
    settings = {"steps": 100, "lr": 0.5, "min_lr": 0.1, "warmup": 10, "constant": 0}
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.05) and rates[9] == rates[10] == pytest.approx(0.5)
    assert rates[55] == pytest.approx(0.3)  # half way down the cosine
    assert rates[100] == pytest.approx(0.1)
    for step in range(10, 101):
        expected = 0.1 + 0.4 * math.cos((step - 10) / 90 * math.pi / 2) ** 2  # (1 + cos 2x) / 2 = cos² x
        assert rates[step] == pytest.approx(expected)
    assert learning_rate(0, settings | {"warmup": 0}) == 0.5
    assert learning_rate(99, settings | {"warmup": 100}) == 0.5


def test_constant_steps_come_between_warm_up_and_cosine():
    """MobileCLIP's long training: half of the steps at the peak, then the cosine."""
    settings = {"steps": 100, "lr": 0.5, "min_lr": 0.0, "warmup": 10, "constant": 40}
    rates = [learning_rate(step, settings) for step in range(101)]
    assert set(rates[9:51]) == {0.5}
    assert rates[75] == pytest.approx(0.25) and rates[100] == pytest.approx(0)


def test_learning_rate_equals_open_clips():
    """open_clip's training loop, apart from `min_lr`: its schedule ends at 0."""
    scheduler = pytest.importorskip("open_clip_train.scheduler")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = scheduler.cosine_lr(optimizer, 0.5, 10, 100)
    for step in range(100):
        theirs(step)
        ours = learning_rate(step, {"steps": 100, "lr": 0.5, "min_lr": 0.0, "warmup": 10, "constant": 0})
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    "name", ["MobileCLIP-S0", "MobileCLIP-B", "FastViT-MA36:Base", "ViT-B/16:MCt-2", "CLIP-KD:Swin-T", "mini-student"]
)
def test_matrices_decay_and_vectors_do_not_whatever_their_shape(name):
    """A tensor in which all but one dimension is 1 is a vector: a bias, a gain, a layer scale. No other is spared."""
    with torch.device("meta"):
        model = build(load_models(REPOSITORY)[name], name)
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            vector = parameter.numel() == max(parameter.shape, default=1)
            relative = key == "relative_position_bias_table"  # Swin's, a table of biases
            kernel = isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear | nn.Embedding) and key == "weight"
            expected = kernel or not (vector or relative)
            assert decays(module, key, parameter) == expected, (path, key)


def test_biases_of_experts_in_one_tensor_do_not_decay():
    module = nn.Module()
    assert not decays(module, "expert_bias", nn.Parameter(torch.zeros(4, 5)))
    assert decays(module, "expert_weight", nn.Parameter(torch.zeros(4, 5, 6)))


def test_every_parameter_is_in_one_group_with_the_recipes_numbers(model_config, tokenizer, tmp_path):
    student = student_of(model_config, tokenizer, tmp_path)
    heads = nn.Linear(3, 3)
    settings = RECIPE | {"weight_decay": 0.2, "lr": 0.5, "betas": [0.8, 0.9], "eps": 1e-6}
    optimizer = build_optimizer(nn.ModuleList([student, heads]), settings)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    everything = [*student.named_parameters(), *heads.named_parameters()]
    assert len(decay) == sum(len(group["params"]) for group in optimizer.param_groups) == len(everything)
    for name, p in everything:
        spared = p.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))  # open_clip's rule
        assert decay[id(p)] == (0.0 if spared else 0.2), name
    assert all((g["lr"], g["betas"], g["eps"]) == (0.5, (0.8, 0.9), 1e-6) for g in optimizer.param_groups)


def test_a_student_normalises_images_and_embeddings(model_config, tokenizer, tmp_path):
    config = json.loads(json.dumps(model_config))
    config["preprocess_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    student, batch = student_of(config, tokenizer, tmp_path), batch_of(2)
    img = batch.images["image"].numpy()
    expected = np.stack([(img[:, c] / 255 - (0.1, 0.2, 0.3)[c]) / (0.5, 0.6, 0.7)[c] for c in range(3)], axis=1)
    np.testing.assert_allclose(student.to_input(batch.images["image"]).numpy(), expected, atol=1e-6)
    images, texts, scale, parts = student(batch.images, batch.texts)
    assert parts == {} and scale.item() == pytest.approx(1 / 0.07, rel=1e-4)
    for emb in (images["image"], texts["real"], texts["syn"]):
        assert emb.shape == (2, 16) and emb.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(texts["syn"], student.model.encode_text(batch.texts["syn"], normalize=True))


@pytest.mark.parametrize("piece_size", [1, 3, 4])
@pytest.mark.parametrize(
    ("module", "settings"),
    [(clip, {}), (reinforced, REINFORCED), (clip_kd, CLIP_KD), (clip_kd, FEATURES)],
    ids=["clip", "reinforced", "kd", "a loss that does not read the scale"],
)
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(
    module, settings, piece_size, model_config, tokenizer, tmp_path
):
    student, batch, objective = (
        student_of(model_config, tokenizer, tmp_path),
        batch_of(),
        objective_of(module, settings),
    )
    parts, whole = gradients(student, objective, batch)
    parts_of_pieces, pieces = gradients(student, objective, batch, piece_size)
    assert parts_of_pieces == pytest.approx(parts, abs=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_pieces_of_a_model_with_batch_norms_differ_by_their_statistics_alone(tokenizer, tmp_path):
    """What the docs say of such models: running statistics move once a piece, and gradients are near, not equal."""
    config = load_models(REPOSITORY)["mini-student"]
    batch = batch_of(16)
    texts = {kind: torch.nn.functional.pad(tokens, (0, 4)) for kind, tokens in batch.texts.items()}
    batch = Batch(batch.uids, batch.images, texts, batch.teachers)
    student = student_of(config, tokenizer, tmp_path)
    _, whole = gradients(student, objective_of(clip), batch)
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [int(norm.num_batches_tracked) for norm in norms]
    _, pieces = gradients(student, objective_of(clip), batch, 8)
    assert [int(norm.num_batches_tracked) for norm in norms] == [number + 2 for number in before]
    flat = [torch.cat([gradient.flatten() for gradient in grads.values()]) for grads in (whole, pieces)]
    cosine = torch.nn.functional.cosine_similarity(*flat, dim=0).item()
    assert 0.7 < cosine < 0.9999


OBJECTIVES = {"clip": (clip, {}), "reinforced": (reinforced, REINFORCED), "clip-kd": (clip_kd, CLIP_KD)}


def share(processes: int, objective: str, piece_size: int, config: dict, tokenizer: Path, folder: Path) -> None:
    """What one of several processes finds for its part of the batch."""
    world = join("cpu", processes)
    module, settings = OBJECTIVES[objective]
    student = wrap(student_of(config, tokenizer, folder / f"{processes}-{world.rank}"), world)
    rows = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
    whole = batch_of()
    mine = whole.map(lambda tensor: tensor[rows])
    mine = Batch(whole.uids[rows], mine.images, mine.texts, mine.teachers)
    found = gradients(student, wrap(objective_of(module, settings), world), mine, piece_size, world)
    torch.save(found, folder / f"{processes}-{world.rank}.pt")
    leave()


@pytest.mark.slow
@pytest.mark.parametrize("piece_size", [0, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_two_and_four_processes_have_the_loss_and_gradients_of_one(
    objective, piece_size, model_config, tokenizer, tmp_path
):
    module, settings = OBJECTIVES[objective]
    student = student_of(model_config, tokenizer, tmp_path)
    parts, whole = gradients(student, objective_of(module, settings), batch_of())
    for processes in (2, 4):
        args = (processes, objective, piece_size, model_config, tokenizer, tmp_path)
        assert in_processes(processes, share, *args) == [0] * processes
        found = [torch.load(tmp_path / f"{processes}-{rank}.pt", weights_only=True) for rank in range(processes)]
        for name, part in parts.items():
            assert np.mean([one[0][name] for one in found]) == pytest.approx(part, abs=1e-5)
        for name, gradient in whole.items():
            for _, grads in found:
                torch.testing.assert_close(grads[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["mini-student", "mini-mci-mct"])
def test_batch_norms_that_share_statistics_keep_the_model(name):
    """torch's own conversion would lose the activation that timm's norms hold. To train them takes several GPUs."""
    model = build(load_models(REPOSITORY)[name], name).eval()
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.encode_image(img)
        converted = shared_statistics(model)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
        assert not any(type(module) is nn.BatchNorm2d for module in converted.modules())
        torch.testing.assert_close(converted.encode_image(img), before)


@pytest.mark.parametrize(
    "change, tolerance",
    [({"channels_last": True}, 1e-4), ({"checkpointing": True}, 1e-5), ({"precision": "bfloat16"}, 0.05)],
    ids=str,
)
def test_ways_to_compute_the_same(change, tolerance, model_config, tokenizer, tmp_path):
    objective, batch = objective_of(reinforced, REINFORCED), batch_of()
    parts, plain = gradients(student_of(model_config, tokenizer, tmp_path), objective, batch)
    parts_changed, changed = gradients(student_of(model_config, tokenizer, tmp_path, **change), objective, batch)
    assert parts_changed == pytest.approx(parts, rel=tolerance)
    flat = [torch.cat([gradient.flatten() for gradient in grads.values()]) for grads in (plain, changed)]
    assert (flat[0] - flat[1]).norm() / flat[0].norm() < 3 * tolerance
    assert all(gradient.dtype == torch.float32 for gradient in changed.values())
    assert (parts_changed == parts) == ("precision" not in change)


def run(student, objective, settings, folder, batches=None, tensorboard=None):
    folder.mkdir(exist_ok=True)
    every = batches or (lambda start: iter(lambda: batch_of(), None))
    return fit(student, objective, every, RECIPE | settings, "a run", folder, ALONE, tensorboard)


class Scale(nn.Module):
    """An objective that wants a larger logit scale, and has a module of its own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 1)

    def forward(self, embeddings):
        return {"scale": -embeddings.scale.log(), "head": self.head(embeddings.images["image"]).square().mean()}


def test_the_logit_scale_stays_below_its_limit_and_an_objectives_modules_train(model_config, tokenizer, tmp_path):
    student, objective = student_of(model_config, tokenizer, tmp_path), Scale()
    before = objective.head.weight.clone()
    model = run(student, objective, {"lr": 1.0, "min_lr": 1.0, "max_logit_scale": 50.0}, tmp_path / "run")
    assert model.logit_scale.exp().item() == pytest.approx(50, rel=1e-5)
    assert not torch.equal(objective.head.weight, before)
    assert {"scale", "head"} < read_log(tmp_path / "run/log.jsonl")[0].keys()


def test_the_moving_average_is_the_formula(model_config, tokenizer, tmp_path):
    """ē ← d ē + (1 - d) e after each step, from the weights after the first."""
    weights = []

    def batches(start):
        while True:
            yield batch_of()
            weights.append(student.model.visual.proj.detach().clone())

    student = student_of(model_config, tokenizer, tmp_path)
    averaged = run(student, objective_of(clip), {"ema": 0.8, "steps": 5}, tmp_path / "run", batches)
    weights.append(student.model.visual.proj.detach())
    expected = weights[0]
    for step in weights[1:5]:
        expected = 0.8 * expected + 0.2 * step
    torch.testing.assert_close(averaged.visual.proj, expected)
    assert not torch.equal(averaged.visual.proj, student.model.visual.proj)


def test_an_exploding_loss_stops_the_run(model_config, tokenizer, tmp_path):
    class Exploding(nn.Module):
        calls = 0

        def forward(self, embeddings):
            self.calls += 1
            return {"part": embeddings.scale * (1 if self.calls < 3 else 1000)}

    with pytest.raises(UserError, match=r"a run: at step 2 loss 1\d{4}.* exploded from 14.*lower `lr`.*batch: 0, 1, 2"):
        run(student_of(model_config, tokenizer, tmp_path), Exploding(), {}, tmp_path / "run")


def test_tensorboard_files_hold_what_the_log_holds(model_config, tokenizer, tmp_path):
    student = student_of(model_config, tokenizer, tmp_path)
    run(student, objective_of(clip), {"steps": 2}, tmp_path / "run", tensorboard=tmp_path / "board")
    (events,) = (tmp_path / "board").iterdir()
    data = events.read_bytes()
    assert all(name.encode() in data for name in read_log(tmp_path / "run/log.jsonl")[0])


def test_a_compiled_student_is_the_same_student(model_config, tokenizer, tmp_path, monkeypatch):
    """torch.compile is asked for both towers, in place: names of weights stay. Its own work is torch's to test."""
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    plain = student_of(model_config, tokenizer, tmp_path)
    student = student_of(model_config, tokenizer, tmp_path, compile=True)
    assert compiled == [type(student.model.visual).__name__, type(student.model.text).__name__]
    assert student.state_dict().keys() == plain.state_dict().keys()


def test_a_ladder_has_evenly_spaced_rungs():
    assert ladder_steps(600, 5) == [100, 200, 300, 400, 500]
    assert ladder_steps(10, 0) == []
