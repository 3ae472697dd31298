"""Files of weights: every form loads, and whatever cannot be loaded whole is refused and leaves the model alone."""

import contextlib
import copy
import pickle
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipdr.errors import UserError
from clipdr.models.build import build
from clipdr.models.fold import reparameterize
from clipdr.models.weights import load_pretrained


@pytest.fixture(scope="module")
def source(model_config):
    """A model whose weights are written into files; no two weights of it are alike."""
    torch.manual_seed(1)
    model = build(model_config, "tiny").eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture()
def model(model_config):
    torch.manual_seed(0)
    return build(model_config, "tiny").eval()


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "weights.pt"


def _equal(model, state):
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and value.equal(state[key].float()), key


def _refused(model, path, name="tiny") -> str:
    """The error; it is one line that begins with the file, and the model is as before."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as error:
        load_pretrained(model, path, name)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    return message


FORMS = {
    "plain": lambda state: state,
    "of clipdr.train": lambda state: {"model": state, "step": 20},
    "of open_clip's training": lambda state: {
        "epoch": 3,
        "name": "run",
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]},
    },
    "float16": lambda state: {key: value.half() for key, value in state.items()},
    "bfloat16": lambda state: {key: value.bfloat16() for key, value in state.items()},
    "float64": lambda state: {key: value.double() for key, value in state.items()},
    "scale in a list": lambda state: state | {"logit_scale": state["logit_scale"][None]},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, source, model, path):
    content = FORMS[form](dict(source.state_dict()))
    torch.save(content, path)
    load_pretrained(model, path, "tiny")
    rounded = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(form, torch.float32)
    _equal(model, {key: value.to(rounded) for key, value in source.state_dict().items()})


def test_safetensors(source, model, tmp_path):
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, tmp_path / "weights.safetensors")
    load_pretrained(model, tmp_path / "weights.safetensors", "tiny")
    _equal(model, source.state_dict())


@pytest.fixture()
def plain_clip(model_config):
    """Open_clip's network without a tower `text`."""
    import open_clip

    config = copy.deepcopy(model_config["model_cfg"])
    config.pop("custom_text")
    for key in ("hf_tokenizer_name", "eos_id"):
        config["text_cfg"].pop(key)
    torch.manual_seed(2)
    return open_clip.CLIP(**config).eval()


@torch.no_grad()
def test_old_keys_of_open_clip(plain_clip, model, path):
    torch.save(plain_clip.state_dict(), path)
    load_pretrained(model, path, "tiny")
    image, tokens = torch.rand(2, 3, 32, 32), torch.tensor([[1, 5, 2] + [0] * 9, [1, 7, 8, 9, 2] + [0] * 7])
    torch.testing.assert_close(model.encode_image(image), plain_clip.encode_image(image))
    hidden = plain_clip.transformer(
        plain_clip.token_embedding(tokens) + plain_clip.positional_embedding, plain_clip.attn_mask
    )
    ends = plain_clip.ln_final(hidden)[[0, 1], [2, 4]]
    torch.testing.assert_close(model.encode_text(tokens), ends @ plain_clip.text_projection)


def test_openais_sizes_are_no_weights_but_ask_for_quick_gelu(model_config, plain_clip, model, path):
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(12), "vocab_size": torch.tensor(300)}
    torch.save(plain_clip.state_dict() | sizes, path)
    assert "QuickGELU" in _refused(model, path)
    config = copy.deepcopy(model_config)
    config["model_cfg"]["quick_gelu"] = True
    quick = build(config, "tiny")
    load_pretrained(quick, path, "tiny")
    assert quick.text.token_embedding.weight.equal(plain_clip.token_embedding.weight)


# -- files that are none


class Touch:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


SAVERS = {
    "torch.save": lambda content, path: torch.save(content, path),
    "torch.save before 1.6": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle 2": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "pickle 5": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=5)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("beside_weights", [False, True])
def test_code_in_a_pickle_does_not_run(saver, beside_weights, model, path, tmp_path):
    made = tmp_path / "made"
    SAVERS[saver]({"model": {"w": torch.ones(2)}, "args": Touch(made)} if beside_weights else Touch(made), path)
    message = _refused(model, path)
    assert not made.exists()
    if saver.startswith("torch"):
        assert "refused, it asks for 'io.open'" in message and ".safetensors" in message
    with contextlib.suppress(RuntimeError):  # the attack is a real one
        torch.load(path, weights_only=False)
    assert made.exists()


def test_numpy_in_a_checkpoint_is_named(source, model, path):
    torch.save({"state_dict": source.state_dict(), "best": np.float64(0.7)}, path)
    assert re.search(r"asks for 'numpy\.\S+scalar', ", _refused(model, path))


def test_missing_file_and_folder(model, path, tmp_path):
    assert "no such file" in _refused(model, path)
    assert "no such file" in _refused(model, tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "-old.pth"])
def test_truncated_files(part, suffix, source, model, tmp_path):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    else:
        torch.save(source.state_dict(), path, _use_new_zipfile_serialization=suffix == ".pt")
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    message = _refused(model, path)  # an old file may end within the name of a class
    assert "no file of weights, or a truncated one" in message or "refused, it asks for 'torch." in message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_files(suffix, model, tmp_path):
    path = tmp_path / f"weights{suffix}"
    random = np.random.default_rng(0)
    for content in (
        b"<html>404</html>",
        b"version https://git-lfs.github.com/spec/v1",
        random.bytes(9),
        random.bytes(999),
    ):
        path.write_bytes(content)
        assert "no file of weights" in _refused(model, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    assert "no file of weights" in _refused(model, path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Validating sparse tensor")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "-old.pth"])
def test_damaged_files(suffix, tmp_path):
    """Where the damage does not show, the weights are loaded; all else is one line."""
    path, random, refused = tmp_path / f"weights{suffix}", np.random.default_rng(0), 0
    model = nn.LayerNorm(3)
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=suffix == ".pt")
    data = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(data)
        for place in random.integers(len(data), size=5):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load_pretrained(model, path, "tiny")
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 50


def test_torchscript(model, path):
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert "TorchScript archive" in _refused(model, path)
    plain = path.with_name("weights-weights.pt")  # what the message says
    torch.save(torch.jit.load(str(path), "cpu").state_dict(), plain)
    assert "not weights of tiny; keys:" in _refused(model, plain)


@pytest.mark.parametrize("content", [{}, [1, 2], 7, {"model": {}}, {"step": 3}, [torch.ones(2)], {"state_dict": None}])
def test_no_tensors(content, model, path):
    torch.save(content, path)
    assert "holds no tensors" in _refused(model, path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "value", [3, None, {"w": torch.ones(2)}, torch.ones(2).to_sparse(), torch.ones(2, device="meta")]
)
def test_other_things_between_the_tensors(value, source, model, path):
    torch.save({**source.state_dict(), "more": value}, path)
    assert "'more' (" in _refused(model, path)


# -- weights that do not fit


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(number, source, model, path):
    state = {key: value.clone() for key, value in source.state_dict().items()}
    state["text.ln_final.bias"][3] = number
    torch.save(state, path)
    assert "NaN or infinity in 1 of 38 tensors (text.ln_final.bias); take" in _refused(model, path)


def test_numbers_too_large_for_the_model(source, model, path):
    state = {key: value.double() for key, value in source.state_dict().items()}
    state["logit_scale"] += 1e300
    torch.save(state, path)
    assert "tensors (logit_scale); " in _refused(model, path)


def test_keys_that_are_missing_or_unexpected_or_of_another_shape(source, model, path):
    state = dict(source.state_dict())
    for n in range(5):
        state[f"teacher.{n}"] = torch.ones(1)
    for key in ("logit_scale", "text.text_projection"):
        del state[key]
    state["visual.proj"] = state["visual.proj"].T
    state["text.ln_final.bias"] = torch.ones(32, dtype=torch.int8)
    torch.save(state, path)
    assert _refused(model, path) == (
        f"{path}: not weights of tiny; keys: 2 missing (logit_scale, text.text_projection); "
        "5 unexpected (teacher.0, teacher.1, teacher.2, …); 2 of another shape or kind "
        "(visual.proj: float32[16, 32] for float32[32, 16], text.ln_final.bias: int8[32] for float32[32])"
    )


def test_two_names_for_one_weight(source, model, path):
    state = dict(source.state_dict())
    torch.save(state | {"ln_final.bias": state["text.ln_final.bias"]}, path)
    assert "text.ln_final.bias and ln_final.bias stand for the same weight" in _refused(model, path)


def test_a_prefix_of_some_keys_is_no_prefix(source, model, path):
    state = dict(source.state_dict())
    state["module.logit_scale"] = state.pop("logit_scale")
    torch.save(state, path)
    assert "1 missing (logit_scale); 1 unexpected (module.logit_scale)" in _refused(model, path)


# -- MobileCLIP's forms in small


def _mobileclip():
    """MCi and MCt in small."""
    from clipdr.models.registry import configuration

    config, text = (copy.deepcopy(configuration(name)) for name in ("mini-mci-base", "mini-vit-mct"))
    config["model_cfg"]["text_cfg"] = text["model_cfg"]["text_cfg"]
    return build(config, "tiny").eval()


def test_folded_weights(path):
    model = _mobileclip()
    folded = reparameterize(model)
    torch.save(folded.state_dict(), path)
    assert "holds a reparameterized model" in _refused(model, path)
    again = reparameterize(_mobileclip())
    load_pretrained(again, path, "tiny")
    assert all(value.equal(again.state_dict()[key]) for key, value in folded.state_dict().items())
    torch.save(model.state_dict(), path)
    assert "is reparameterized; load first, then fold" in _refused(folded, path)


class Projected(nn.Module):
    """As much of a model as has timm's trunk and our projection."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = nn.ModuleDict({"norm": nn.LayerNorm(6)})
        self.visual.head = nn.Sequential(OrderedDict(proj=nn.Linear(6, 4, bias=False)))


@pytest.mark.parametrize("head", ["visual.trunk.head.fc", "visual.trunk.head"])
def test_open_clips_projection_has_a_bias_of_zeros(head, path):
    state = {"visual.trunk.norm.weight": torch.rand(6), "visual.trunk.norm.bias": torch.rand(6)}
    state |= {f"{head}.weight": torch.rand(4, 6), f"{head}.bias": torch.zeros(4)}
    model = Projected()
    torch.save(state, path)
    load_pretrained(model, path, "tiny")
    assert model.visual.head.proj.weight.equal(state[f"{head}.weight"])
    state[f"{head}.bias"][2] = 1e-8
    torch.save(state, path)
    message = _refused(model, path)
    assert f"{head}.bias is not zero" in message and "open_clip:tiny" in message
    torch.save(state | {f"{head}.bias": torch.zeros(4), "visual.head.proj.weight": torch.rand(4, 6)}, path)
    assert "stand for the same weight" in _refused(model, path)


def test_apples_projection_is_transposed(path):
    weight = torch.rand(6, 4)
    norm = {f"image_encoder.model.post_transformer_norm.{key}": torch.rand(6) for key in ("weight", "bias")}
    for key in ("head.proj", "classifier.proj"):
        model = Projected()
        torch.save(norm | {f"image_encoder.model.{key}": weight}, path)
        load_pretrained(model, path, "tiny")
        assert model.visual.head.proj.weight.equal(weight.T)
    torch.save(norm | {"image_encoder.model.head.proj": weight.T}, path)
    assert "1 of another shape or kind (image_encoder.model.head.proj: " in _refused(model, path)
