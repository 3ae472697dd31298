"""Models by name: what config/models may say, what open_clip's names mean, and what a model does with its input."""

import logging
import re
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from refusals import refused
from torchvision.transforms import v2

from clipdr.errors import UserError
from clipdr.model_files import load_models
from clipdr.models import registry
from clipdr.models.build import build
from clipdr.models.create import create_model, import_weights
from clipdr.models.folder import preprocessing
from clipdr.models.load import load_model
from clipdr.models.registry import configuration, open_clip_name

REPO = Path(__file__).parents[2]
NAMES = list(load_models(REPO))
OPENAI = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
CUSTOM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"}


def on_meta(name, **options):
    """The model without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.fixture(scope="module")
def s0():
    return on_meta("MobileCLIP-S0")


@pytest.fixture(scope="module")
def b():
    return on_meta("MobileCLIP-B")


@pytest.fixture(scope="module")
def mini(tokenizer):
    return create_model("mini-vit-mct", tokenizer=tokenizer)


# ---- names


TINY = {
    "vision_cfg": {"layers": 1, "width": 8, "head_width": 4, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1},
}


def towers(kind):
    """First name -> tower of that kind, of all the different ones in config/models."""
    found = {}
    for name in NAMES:
        model_cfg = configuration(name)["model_cfg"]
        if "multimodal_cfg" not in model_cfg and model_cfg[kind] not in found.values():
            found[name] = model_cfg[kind]
    return found


@pytest.mark.parametrize("name", towers("vision_cfg"))
@torch.no_grad()
@pytest.mark.slow
def test_every_image_tower_takes_its_images(name):
    config = configuration(name)
    with torch.device("cpu" if name.startswith("mini-") else "meta"):
        model = build({**config, "model_cfg": {**config["model_cfg"], "text_cfg": TINY["text_cfg"]}}, name).eval()
        side, _, _ = preprocessing(model)
        assert model.visual(torch.zeros(2, 3, side, side)).shape == (2, config["model_cfg"]["embed_dim"])


@pytest.mark.parametrize("name", towers("text_cfg"))
@torch.no_grad()
def test_every_text_tower_takes_its_texts(name):
    model_cfg = configuration(name)["model_cfg"]
    with torch.device("cpu" if name.startswith("mini-") else "meta"):
        model = build({"model_cfg": {**model_cfg, "vision_cfg": TINY["vision_cfg"]}}, name).eval()
        tokens = torch.zeros(2, model_cfg["text_cfg"]["context_length"], dtype=torch.int64)
        assert model.text(tokens).shape == (2, model_cfg["embed_dim"])


def test_the_names_that_experiments_use():
    """Tables 1, 5, 7 and 18, the students and teachers of CLIP-KD and DIME-FM's, and CLIP-UP's, dense and upcycled."""
    rows = [f"ViT-B/16:MCt-{n}" for n in (6, 4, 2, 1, 0, "0-k3", "0-k31")]
    rows += ["ViT-B/16:Base", "ViT-S/16:Base", "ViT-S/16:MCt", "FastViT-MA36:Base", "MCi2:Base"]
    rows += [f"MobileCLIP-{size}" for size in ("S0", "S1", "S2", "B")]
    students = ("ViT-T/16", "MobileViT-S", "Swin-T", "MobileNetV3", "EfficientNet-B0", "ResNet-18")
    rows += [f"CLIP-KD:{name}" for name in (*students, "ViT-B/16", "ResNet-50", "ResNet-101")]
    rows += ["DIME-FM:ViT-B/32", "DIME-FM:Swin-T"]
    rows += [f"CLIP-UP:{size}{kind}" for size in ("B/32", "B/16", "L/14") for kind in ("", ":upcycled")]
    assert set(rows) == {name for name in NAMES if name[:5] != "mini-"}
    assert configuration("ViT-B/16:Base") == configuration("MobileCLIP-B")
    assert configuration("MCi2:Base") == configuration("MobileCLIP-S2")


def test_the_paper_comes_before_open_clip():
    ours, theirs = (configuration(f"{prefix}MobileCLIP-B")["model_cfg"]["vision_cfg"] for prefix in ("", "open_clip:"))
    assert (ours["stem_padding"], ours["norm_eps"], ours["timm_proj"]) == (1, 1e-5, "linear")
    assert theirs["timm_proj"] is None and not theirs.keys() & {"stem_padding", "norm_eps"}
    assert configuration("open_clip:ViT-B-32") == configuration("ViT-B-32")


def test_open_clip_names_give_its_networks():
    ours = on_meta("open_clip:MobileCLIP-B")
    with torch.device("meta"):
        theirs = open_clip.create_model("MobileCLIP-B", device="meta")
    assert str(ours) == str(theirs) and ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.visual.trunk.patch_embed.backbone[0].conv.padding == (0, 0)


def test_open_clip_name():
    names = ("MobileCLIP-S1", "open_clip:MobileCLIP-S1", "ViT-B-32", "open_clip:ViT-B-32")
    assert [open_clip_name(name) for name in names] == [None, "MobileCLIP-S1", "ViT-B-32", "ViT-B-32"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MobileCLIP-S5", "'MobileCLIP-S[0-2]'"),
        ("mini-studnt", "'mini-student'"),
        ("ViT-B/32", "'ViT-B-32'"),  # open_clip's own functions take this one
        ("ViT-B/16:MCt-3", "'ViT-B/16:MCt-[0-9]'"),
        ("open_clip:MobileCLIP-S9", "MobileCLIP-S[0-9]"),
    ],
)
def test_unknown_names(name, nearest):
    import re

    message = refused(create_model, name)
    assert repr(name) in message and re.search(f"did you mean .*{nearest}", message), message
    assert "config/models" in message and "list_models" in message


@pytest.mark.parametrize("name", ["hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "local-dir:/somewhere", "", "xyz"])
def test_other_names_of_open_clip_are_unknown(name, monkeypatch):
    """They say where to fetch a model from; nothing is fetched."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    monkeypatch.setattr(open_clip.factory, "_get_hf_config", None)
    assert f"model {name!r} is not known" in refused(create_model, name)


def test_configurations_cannot_be_changed_by_mistake():
    first = configuration("mini-student")
    try:
        first["model_cfg"]["vision_cfg"]["image_size"] = 1
        assert configuration("mini-student")["model_cfg"]["vision_cfg"]["image_size"] == 32
    finally:
        first["model_cfg"]["vision_cfg"]["image_size"] = 32


# ---- weights


def test_the_seed_decides_the_weights(tokenizer):
    states = []
    for seed, disturbance in ((0, 5), (0, 6), (1, 5)):
        torch.manual_seed(disturbance)
        states.append(create_model("mini-mci-base", tokenizer=tokenizer, seed=seed).state_dict())
    first, again, other = states
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any((value != other[key]).any() for key, value in first.items())


def test_a_package_without_its_repository_does_not_take_open_clips_networks_for_the_papers(tmp_path, monkeypatch):
    registry._known.cache_clear()
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path)
    try:
        assert "config/models has no models; clipdr runs from its repository" in refused(create_model, "MobileCLIP-S1")
    finally:
        registry._known.cache_clear()


def test_a_tokenizer_that_cannot_be_fetched(monkeypatch):
    def unreachable(name):
        raise OSError("We couldn't connect to the Hub.\nMore lines")

    monkeypatch.setattr(open_clip, "get_tokenizer", unreachable)
    message = refused(create_model, "ViT-B-16-SigLIP")
    assert message.startswith("ViT-B-16-SigLIP: its tokenizer, timm/ViT-B-16-SigLIP of the Hugging Face Hub, cannot be")


@pytest.mark.parametrize(
    ("name", "warned"), [("RN50", ["openai", "yfcc15m", "cc12m"]), ("RN50-quickgelu", []), ("ViT-B-32-256", [])]
)
def test_weights_with_another_activation_are_warned_of(name, warned, monkeypatch, caplog):
    """QuickGELU and GELU have the same weights, so that no key or shape tells them apart."""
    monkeypatch.setattr("clipdr.models.create.load_pretrained", lambda *args: None)
    monkeypatch.setattr(logging.getLogger("clipdr"), "propagate", True)
    with torch.device("meta"):
        create_model(name, "weights.pt")
    assert ("QuickGELU" in caplog.text) == bool(warned)
    assert all(tag in caplog.text for tag in warned)


def test_missing_weights_are_an_error(tokenizer):
    assert "missing.pt" in refused(create_model, "mini-student", pretrained="missing.pt", tokenizer=tokenizer)


def test_weights_of_a_file_are_used(tokenizer, tmp_path):
    other = create_model("mini-student", tokenizer=tokenizer, seed=1)
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    model = create_model("mini-student", pretrained=tmp_path / "weights.pt", tokenizer=tokenizer, seed=0)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_models_are_ready_for_use(mini, s0):
    for model in (mini, s0):
        assert not any(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert (mini.visual.image_size, mini.text.context_length) == ((32, 32), 16)
    with torch.no_grad():
        image = mini.preprocess(Image.new("RGB", (40, 50), "red"))
        assert mini.visual(image[None]).shape == mini.text(mini.tokenizer(["red apple"])).shape == (1, 64)


# ---- images


@pytest.fixture(scope="module", params=["wide", "tall", "small", "grey", "transparent"])
def image(request):
    """Of random pixels, smoothed, so that every interpolation gives something else."""
    sizes = {"wide": (413, 300), "tall": (301, 512), "small": (40, 30)}
    random = torch.randint(0, 256, (40, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(random.numpy()).resize(sizes.get(request.param, (299, 371)), Image.Resampling.BICUBIC)
    return image.convert({"grey": "L", "transparent": "RGBA"}.get(request.param, "RGB"))


def prepared(image, side, interpolation, mean=(0.0,) * 3, std=(1.0,) * 3):
    """By torchvision: shortest side to `side`, the middle of the longer one, values in [0, 1], then mean and std."""
    steps = [v2.Resize(side, v2.InterpolationMode(interpolation)), v2.CenterCrop(side), v2.PILToTensor()]
    return v2.Normalize(mean, std)(v2.Compose(steps)(image.convert("RGB")).float() / 255)


@pytest.mark.parametrize(
    ("model", "side", "how"), [("s0", 256, "bilinear"), ("b", 224, "bilinear"), ("mini", 32, "bicubic")]
)
def test_images_of_mobileclip_are_scaled_and_nothing_else(model, side, how, image, request):
    found = request.getfixturevalue(model).preprocess(image)
    assert found.shape == (3, side, side) and found.dtype == torch.float32
    torch.testing.assert_close(found, prepared(image, side, how), rtol=0, atol=1e-6)
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    default = open_clip.image_transform(side, is_train=False)(image)  # what open_clip does if nobody says anything
    assert not torch.allclose(found, default, atol=0.1)
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[how]
    assert not torch.allclose(found, prepared(image, side, other), atol=1e-3)


def test_every_model_of_the_paper_is_prepared_the_same_way():
    ours = [name for name in NAMES if not name.startswith(("CLIP-KD:", "CLIP-UP:", "DIME-FM:"))]
    found = [configuration(name)["preprocess_cfg"] for name in ours]
    same = {"mean": [0.0] * 3, "std": [1.0] * 3, "resize_mode": "shortest"}
    assert len(ours) > 20
    for name, entry in zip(ours, found, strict=True):  # miniatures are scored as they are trained, on bicubic crops
        student = name.startswith("mini-") and name != "mini-captioner"
        assert entry == same | {"interpolation": "bicubic" if student else "bilinear"}, name


def test_open_clip_reads_the_preprocessing_where_it_looks_for_it(s0):
    assert preprocessing(s0) == (256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    cfg = open_clip.get_model_preprocess_cfg(s0)
    assert (cfg["mean"], cfg["std"], cfg["interpolation"]) == ([0.0] * 3, [1.0] * 3, "bilinear")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", OPENAI | {"interpolation": "bicubic", "resize_mode": "shortest"}),
        ("RN50", OPENAI | {"interpolation": "bicubic", "resize_mode": "shortest"}),
        *(
            (name, {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"})
            for name in ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP2-256")
        ),
        *(
            (name, {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "resize_mode": "shortest"})
            for name in ("open_clip:MobileCLIP-S1", "MobileCLIP2-S0")
        ),
    ],
)
def test_models_of_open_clip_are_prepared_as_their_weights_were_trained(name, expected):
    assert configuration(name)["preprocess_cfg"] == expected


@pytest.mark.parametrize("name", ["ViT-S-16", "ViT-L-14"], ids=["no published weights", "weights that differ"])
def test_without_a_published_preprocessing_one_must_be_given(name):
    assert "preprocess_cfg" not in configuration(name)
    assert f"{name}: " in refused(create_model, name) and "give preprocess_cfg" in refused(create_model, name)


def test_a_given_preprocessing_is_used(image):
    model = on_meta("ViT-S-16", preprocess_cfg=CUSTOM)
    expected = prepared(image, 224, "bicubic", CUSTOM["mean"], CUSTOM["std"])
    torch.testing.assert_close(model.preprocess(image), expected, rtol=0, atol=1e-5)
    assert preprocessing(model) == (224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("key", CUSTOM)
def test_half_a_preprocessing_is_refused(key):
    """open_clip would fill up the rest with OpenAI's."""
    part = {name: value for name, value in CUSTOM.items() if name != key}
    message = refused(on_meta, "ViT-S-16", preprocess_cfg=part)
    assert message == f"ViT-S-16: preprocess_cfg has no {key!r}; add it"
    assert message == refused(on_meta, "ViT-S-16", preprocess_cfg={**part, key: None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1]}, "mean [0.1]; write one number per channel"),
        ({"std": [1, 0, 1]}, "std [1, 0, 1]; write numbers above 0"),
        ({"interpolation": "cubic"}, "open_clip cannot use preprocess_cfg"),
        ({"resize_mode": "sqush"}, "open_clip cannot use preprocess_cfg"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_preprocessing_that_is_wrong(change, message):
    assert message in refused(on_meta, "ViT-S-16", preprocess_cfg=CUSTOM | change)


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (torch.zeros(1, 3, 30, 32), r"images have shape \[1, 3, 30, 32\]; .* \[batch, 3, 32, 32\]"),
        (torch.zeros(1, 3, 64, 64), r"images have shape \[1, 3, 64, 64\]"),
        (torch.zeros(1, 1, 32, 32), r"images have shape \[1, 1, 32, 32\]"),
        (torch.zeros(3, 32, 32), r"images have shape \[3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "images are torch.uint8; .*floating point"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "images are torch.float64, the model's weights torch.float32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float16), "images are torch.float16, the model's weights torch.float32"),
    ],
)
def test_wrong_images(mini, img, message):
    for call in (mini.visual, mini.encode_image, mini, lambda img: mini.visual(x=img)):
        with pytest.raises(UserError, match=message):
            call(img)


def test_autocast_converts_images(mini):
    img = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = mini.visual(img.bfloat16())
    torch.testing.assert_close(half.float(), mini.visual(img), rtol=0.1, atol=0.1)


# ---- texts


def test_tokens_are_those_of_clip(s0):
    texts = ["a photo of a cat", "Zwölf Boxkämpfer!", "", "two  spaces,\nand a line", "🦉 at night", "don't"]
    expected = open_clip.get_tokenizer("ViT-B-32")(texts)
    tokens = s0.tokenizer(texts)
    assert torch.equal(tokens, expected) and tokens.dtype == torch.int64 and tokens.shape == (6, 77)
    assert torch.equal(on_meta("ViT-S-16", preprocess_cfg=CUSTOM).tokenizer(texts), expected)


def test_texts_that_do_not_fit(s0, caplog):
    fits, long, longer = "owl " * 75, "tram " * 76, "crab " * 200
    assert (s0.tokenizer([fits]) != 0).all()  # with start and end token, 77
    for text in (long, longer):
        message = refused(s0.tokenizer, ["a cat", text, fits])
        assert text[:60] in message and "77 tokens" in message and "cut" in message
    with caplog.at_level(logging.INFO, "clipdr"):
        tokens = s0.tokenizer.cut(["a cat", long, fits, longer])
        assert torch.equal(tokens, open_clip.get_tokenizer("ViT-B-32")(["a cat", long, fits, longer]))
        assert (tokens[[1, 3], -1] == 49407).all()
        assert [record.getMessage() for record in caplog.records] == [
            "2 of 4 texts are longer than 77 tokens and were cut"
        ]
        caplog.clear()
        s0.tokenizer.cut(["a cat", fits])
        assert not caplog.records


def test_tokens_of_a_miniature_are_its_own(mini, tokenizer, tmp_path):
    from small import new_model

    from clipdr.models.folder import load_tokenizer

    new_model(configuration("mini-vit-mct"), tokenizer, tmp_path, 0)
    texts = ["red apple", "OLD tram, at night"]
    assert torch.equal(mini.tokenizer(texts), load_tokenizer(tmp_path)(texts))
    message = refused(mini.tokenizer, ["red " * 40])
    assert "red red" in message and "16 tokens" in message
    assert mini.tokenizer.cut(["red " * 40])[0, -1] == 2


def test_a_single_text_is_a_list_of_one(s0):
    assert torch.equal(s0.tokenizer("a cat"), s0.tokenizer(["a cat"]))
    assert "tram tram" in refused(s0.tokenizer, "tram " * 80)


def test_a_miniature_needs_its_tokenizer(tmp_path):
    message = refused(create_model, "mini-student")
    assert "mini-student" in message and "tokenizer=" in message
    assert str(tmp_path / "none") in refused(create_model, "mini-student", tokenizer=tmp_path / "none")
    assert str(tmp_path) in refused(create_model, "mini-student", tokenizer=tmp_path)  # an empty folder


@pytest.mark.parametrize("name", ["MobileCLIP-S0", "ViT-B-32"])
def test_a_tokenizer_that_would_be_ignored_is_refused(name, tokenizer):
    message = refused(on_meta, name, tokenizer=tokenizer)
    assert name in message and "tokenizer" in message


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(2, 15, dtype=torch.int64), r"tokens have shape \[2, 15\]; .* \[batch, 16\]"),
        (torch.zeros(2, 77, dtype=torch.int64), r"tokens have shape \[2, 77\]"),
        (torch.zeros(16, dtype=torch.int64), r"tokens have shape \[16\]"),
        (torch.zeros(2, 16), "tokens are torch.float32; .*int64"),
        (torch.zeros(2, 16, dtype=torch.bool), "tokens are torch.bool"),
    ],
)
def test_wrong_tokens(mini, tokens, message):
    for call in (mini.text, mini.encode_text, lambda tokens: mini(None, tokens)):
        with pytest.raises(UserError, match=message):
            call(tokens)


# ---- configurations that cannot be built


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("text_cfg", {"hight": 3}, "tiny: open_clip cannot build .*hight"),
        ("vision_cfg", {"timm_model_name": "fastvit_mci9"}, "tiny: open_clip cannot build .*fastvit_mci9"),
        ("vision_cfg", {"stem_padding": 1}, "tiny: vision_cfg.stem_padding is for timm's vit_base_mci_224"),
        ("vision_cfg", {"timm_model_name": "test_vit", "stem_padding": 1}, "tiny: vision_cfg.stem_padding is for"),
    ],
)
def test_broken_configurations_are_one_line(model_config, tower, change, message):
    import re

    model_cfg = {key: value for key, value in model_config["model_cfg"].items()}
    model_cfg[tower] = model_cfg[tower] | change
    with torch.device("meta"):
        assert re.search(message, refused(build, {**model_config, "model_cfg": model_cfg}, "tiny"))


# ---- published weights as a folder


@pytest.mark.slow
def test_published_weights_become_a_folder_that_evaluation_loads(tmp_path):
    name = "CLIP-KD:ViT-T/16"
    published = create_model(name, seed=3)
    torch.save(published.state_dict(), tmp_path / "weights.pt")
    import_weights(name, tmp_path / "weights.pt", tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.state_dict().keys() == published.state_dict().keys()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, published.state_dict()[key]), key
    assert loaded.tokenizer(["a photo of a dog"]).shape == (1, 77)
    assert loaded.preprocess(Image.new("RGB", (300, 250))).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MobileCLIP-S9", "model 'MobileCLIP-S9' is not known; did you mean"),
        ("ViT-B-32", "ViT-B-32 is open_clip's model"),
        ("mini-student", "results/runs/<run>/model"),
    ],
)
def test_what_cannot_be_imported(name, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        import_weights(name, tmp_path / "weights.pt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["DIME-FM:ViT-B/32", "DIME-FM:Swin-T"])
def test_dime_fms_students_have_the_text_tower_of_openais_vit_l_14(name):
    """Its weights are taken over key by key, and its activation leaves no trace in them."""
    ours = registry.configuration(name)["model_cfg"]
    theirs = registry.configuration("open_clip:ViT-L-14-quickgelu")["model_cfg"]
    for key in ("text_cfg", "embed_dim", "quick_gelu"):
        assert ours[key] == theirs[key]
