"""Published weights become model folders that answer as open_clip's own models do."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import pretrained

from clipdr.errors import UserError
from clipdr.files import sha256_file
from clipdr.models.load import load_model
from clipdr.reinforce.captions import generate
from clipdr.zoo.published import publish

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CAPTIONER = {
    **TINY,
    "vision_cfg": {**TINY["vision_cfg"], "output_tokens": True},
    "text_cfg": {**TINY["text_cfg"], "context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
}
SETTINGS = {"model": "tiny", "pretrained": "first"}


@pytest.fixture
def listed(tmp_path: Path, monkeypatch) -> Path:
    """open_clip with two models more, and their weights in a folder."""
    for name, cfg in (("tiny", TINY), ("coca_tiny", CAPTIONER)):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / f"configs/{name}.json").write_text(json.dumps(cfg))
    open_clip.add_model_config(tmp_path / "configs")
    for name in ("tiny", "coca_tiny"):
        torch.manual_seed(0)
        model = open_clip.create_model(name)
        for parameter in model.parameters():  # some are zeros at the start
            torch.nn.init.normal_(parameter, std=0.3)
        (tmp_path / "weights" / name).mkdir(parents=True)
        torch.save(model.state_dict(), tmp_path / "weights" / name / "first.bin")
        monkeypatch.setitem(
            pretrained._PRETRAINED,
            name,
            {
                "first": pretrained._pcfg(file=str(tmp_path / "weights" / name / "first.bin")),
                "squashed": pretrained._slpcfg(file=str(tmp_path / "weights" / name / "first.bin"), quick_gelu=True),
                "gone": pretrained._pcfg(hf_hub="nobody/nothing-of-this-name/"),
            },
        )
    return tmp_path


@pytest.mark.parametrize("name", ["tiny", "coca_tiny"])
@pytest.mark.parametrize("tag", ["first", "squashed"])
def test_a_folder_answers_as_open_clip_does(listed: Path, name: str, tag: str) -> None:
    publish({"model": name, "pretrained": tag}, None, listed / "model")
    ours = load_model(listed / "model")
    theirs, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained=str(listed / "weights" / name / "first.bin"), force_quick_gelu=tag == "squashed"
    )
    theirs.eval()
    img, texts = torch.rand(2, 3, 32, 32), ["a Boat, on a lake!", "dogs"]
    tokens = open_clip.get_tokenizer(name)(texts)
    assert torch.equal(ours.tokenizer(texts), tokens)
    torch.testing.assert_close(ours.encode_image(img, normalize=True), theirs.encode_image(img, normalize=True))
    torch.testing.assert_close(ours.encode_text(tokens, normalize=True), theirs.encode_text(tokens, normalize=True))
    assert ours.visual.preprocess_cfg["resize_mode"] == ("squash" if tag == "squashed" else "shortest")
    assert ours.visual.preprocess_cfg["mean"] == list(pretrained.get_pretrained_cfg(name, tag)["mean"])


def test_a_folder_of_weights_takes_the_place_of_the_network(listed: Path) -> None:
    publish({"model": "tiny", "pretrained": "gone"} | {"pretrained": "first"}, listed / "weights", listed / "model")
    publish(SETTINGS, None, listed / "fetched")
    same = [(listed / folder / "open_clip_pytorch_model.bin") for folder in ("model", "fetched")]
    assert sha256_file(same[0]) == sha256_file(same[1])


@pytest.mark.parametrize(
    ("changes", "weights", "message"),
    [
        ({"model": "tinny"}, False, "open_clip has no model 'tinny'; did you mean .*'tiny'"),
        ({"pretrained": "frist"}, False, "has no weights 'frist' of tiny; did you mean 'first'\\? \\(it has first, "),
        ({"pretrained": "gone"}, True, "tiny/gone.safetensors.* exists; put the file there, or take out zoo.weights"),
        ({"pretrained": "gone"}, False, "the weights gone of tiny cannot be fetched .* name the folder as zoo.weights"),
        ({"sha256": "0" * 64}, False, "has sha256 .* but the scale says 0000"),
    ],
)
def test_what_cannot_be_had(listed: Path, monkeypatch, changes: dict, weights: bool, message: str) -> None:
    def unreachable(**_):
        raise ConnectionError("no network")

    monkeypatch.setattr(pretrained, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=message):
        publish(SETTINGS | changes, listed / "weights" if weights else None, listed / "model")
    assert not (listed / "model").exists()


def test_a_published_captioner_speaks_in_clips_own_tokens(listed: Path) -> None:
    """The texts of its tokens, as the published generator takes them apart."""
    publish({"model": "coca_tiny", "pretrained": "first"}, None, listed / "model")
    model = load_model(listed / "model")
    img = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    tokens = model.generate(
        img, generation_type="top_p", top_p=0.9, seq_len=12, min_seq_len=5, fixed_output_length=True, pad_token_id=0
    )
    theirs = [open_clip.decode(row).split("<end_of_text>")[0].replace("<start_of_text>", "") for row in tokens]
    assert model.tokenizer.decode(tokens) == [text.strip() for text in theirs]
    settings = {"top_p": 0.9, "temperature": 1.0, "max_tokens": 12}
    ours = generate(model, img, settings, [[image] for image in range(4)], 2)
    assert [len(row) for row in ours] == [2] * 4 and all(text and "<" not in text for row in ours for text in row)
