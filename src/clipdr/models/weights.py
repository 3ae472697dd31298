"""Read a file of weights without running code from it, and load it into a model with every key accounted for.

The keys of a file tell its form:

| keys | written by |
|---|---|
| the model's own, also inside `model` or `state_dict` or after `module.` | `clipdr.train`, open_clip's training |
| `image_encoder.…`, `text_encoder.…` | Apple: mobileclip_s0.pt, _s1.pt, _s2.pt, _b.pt, _blt.pt |
| `visual.trunk.head.…` | open_clip's MobileCLIP: timm's classifier, with a bias of zeros, is the projection |
| `transformer.…`, `token_embedding.…` | open_clip's CLIP without a `text` tower, OpenAI |

Every tensor of the file has one place in the model and every place one tensor, or nothing is loaded. Of a tensor's
shape only axes of length 1 may differ. All four forms keep the logarithm of the logits' scale in `logit_scale`.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from clipdr.errors import UserError

NESTED = ("model", "state_dict")  # where training puts weights, beside steps and optimizers
# What OpenAI and old versions of transformers save beside the weights; the configuration says the same.
OPENAI = ("input_resolution", "context_length", "vocab_size")
NO_WEIGHTS = (*OPENAI, "text.transformer.embeddings.position_ids")
BROKEN = "no file of weights, or a truncated one; fetch or copy it again"

PROJECTION = "visual.head.proj.weight"  # nn.Linear's [embed_dim, width]; Apple has the transpose

HEADS = ("visual.trunk.head.fc", "visual.trunk.head")  # timm's classifiers, of FastViT and ViT
OLD_TEXT = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")

# Apple's keys -> timm's, within the image tower: (pattern, replacement), all of them, from the top.
APPLE_IMAGE = (
    # MCi: timm's FastViT has stages where Apple has one list of blocks, downsampling and positions.
    (r"^patch_embed\.", "stem."),
    (r"^network\.0\.", "stages.0.blocks."),
    (r"^network\.1\.", "stages.1.downsample."),
    (r"^network\.2\.", "stages.1.blocks."),
    (r"^network\.3\.", "stages.2.downsample."),
    (r"^network\.4\.", "stages.2.blocks."),
    (r"^network\.5\.", "stages.3.downsample."),
    (r"^network\.6\.pe\.", "stages.3.pos_emb.pos_enc."),
    (r"^network\.7\.", "stages.3.blocks."),
    (r"^conv_exp\.", "final_conv."),
    (r"\brbr_conv\b", "conv_kxk"),
    (r"\brbr_scale\b", "conv_scale"),
    (r"\brbr_skip\b", "identity"),
    (r"\blkb_origin\b", "large_conv"),
    (r"\bse\.reduce\b", "se.fc1"),
    (r"\bse\.expand\b", "se.fc2"),
    (r"\bconvffn\b", "mlp"),
    (r"\b(layer_scale\w*)$", r"\1.gamma"),
    # ViT-B/16: timm's vit_base_mci_224.
    (r"^patch_emb\.(\d)\.block\.conv\.", r"patch_embed.backbone.\1.conv."),
    (r"^patch_emb\.(\d)\.block\.norm\.", r"patch_embed.backbone.\1.bn."),
    (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
    (r"^transformer\.", "blocks."),
    (r"\bpre_norm_mha\.0\b", "norm1"),
    (r"\bpre_norm_mha\.1\.qkv_proj\b", "attn.qkv"),
    (r"\bpre_norm_mha\.1\.out_proj\b", "attn.proj"),
    (r"\bpre_norm_ffn\.0\b", "norm2"),
    (r"\bpre_norm_ffn\.1\b", "mlp.fc1"),
    (r"\bpre_norm_ffn\.4\b", "mlp.fc2"),
    (r"^post_transformer_norm\.", "norm."),
)

# The same for the text tower: open_clip's attention blocks, and the Text-RepMixer blocks of `clipdr.models.mct`.
APPLE_TEXT = (
    (r"^embedding_layer\.", "token_embedding."),
    (r"^positional_embedding\.pos_embed\.pos_embed$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^projection_layer$", "text_projection"),
    (r"^transformer\.", "transformer.resblocks."),
    (r"\bpre_norm_mha\.0\b", "ln_1"),
    (r"\bpre_norm_mha\.1\.qkv_proj\.", "attn.in_proj_"),
    (r"\bpre_norm_mha\.1\.out_proj\b", "attn.out_proj"),
    (r"\bpre_norm_ffn\.0\b", "ln_2"),
    (r"\bpre_norm_ffn\.1\b", "mlp.c_fc"),
    (r"\bpre_norm_ffn\.4\b", "mlp.c_proj"),
    (r"\btoken_mixer\.mixer\.rbr_conv\.0\.conv\b", "token_mixer.conv"),
    (r"\btoken_mixer\.mixer\.rbr_conv\.0\.bn\b", "token_mixer.conv_bn"),
    (r"\btoken_mixer\.mixer\.rbr_skip\b", "token_mixer.skip_bn"),
    (r"\btoken_mixer\.norm\.rbr_skip\b", "token_mixer.norm_bn"),
    (r"\bconvffn\.conv\.conv\b", "mlp.conv"),
    (r"\bconvffn\.conv\.bn\b", "mlp.bn"),
    (r"\bconvffn\.fc1\b", "mlp.c_fc"),
    (r"\bconvffn\.fc2\b", "mlp.c_proj"),
)

# A key that only one of Apple's networks has, or has in this shape.
APPLE_MARKS = {
    "MobileCLIP-S0": ("text_encoder.transformer.0.token_mixer.layer_scale", (512, 1, 1)),
    "MobileCLIP-S1": ("image_encoder.model.network.0.3.layer_scale", (64, 1, 1)),
    "MobileCLIP-S2": ("image_encoder.model.network.0.3.layer_scale", (80, 1, 1)),
    "MobileCLIP-B": ("image_encoder.model.cls_token", (1, 1, 768)),
}


def load_pretrained(model: nn.Module, path: Path, name: str) -> None:
    """Load a file of weights into `model`, in place, in the model's own dtypes.

    Args:
        model: of `clipdr.models.build`, in training form unless the file is of a reparameterized model.
        path: .safetensors, or a file of torch.save (.pt, .pth, .bin) in one of this module's forms.
        name: the model's name, for errors.

    Raises:
        UserError: a file that is missing, damaged, a TorchScript archive, or would run code; weights of another model,
            of another form than the model's (training or reparameterized), with NaN or infinity, or a bias for a
            projection that has none.
    """
    own = model.state_dict()
    state = _tensors(_read(Path(path)), path)
    _check_form(state, own, path, name)
    if any(key in state for key in OPENAI) and not any(type(m).__name__ == "QuickGELU" for m in model.modules()):
        raise UserError(
            f"{path}: OpenAI's weights need QuickGELU, which {name} lacks; take open_clip's model named ...-quickgelu"
        )
    named = _names(state, own, path, name)
    _check_keys(named, own, path, name)
    fitted = {key: named[key][1].reshape(target.shape).to(target.dtype) for key, target in own.items()}
    if broken := [named[key][0] for key, value in fitted.items() if not value.isfinite().all()]:
        count = f"{len(broken)} of {len(fitted)} tensors"
        raise UserError(f"{path}: NaN or infinity in {count} ({_some(broken)}); take an earlier checkpoint")
    model.load_state_dict(fitted, strict=True)


def _read(path: Path) -> object:
    """What the file holds; nothing in it is executed."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: no such file; weights are one file, .pt, .pth, .bin or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if not _is_torchscript(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: refused, it asks for {wanted[1]!r}, which is no tensor and could run code; get the weights "
                "as .safetensors, or as torch.save(model.state_dict(), ...)"
            ) from None
        raise UserError(f"{path}: {BROKEN}") from None
    except Exception as error:  # of any type: other files' bytes are taken for sizes, names and instructions
        raise UserError(f"{path}: {BROKEN} ({str(error).partition(chr(10))[0][:100]})") from None
    raise UserError(
        f"{path}: a TorchScript archive, as OpenAI publishes them; take its weights out where you trust it: "
        f"torch.save(torch.jit.load('{path.name}', 'cpu').state_dict(), '{path.stem}-weights.pt')"
    )


def _is_torchscript(path: Path) -> bool:
    """Whether torch.jit.save made the file: unlike torch.save it writes code and constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by key, without what surrounds them."""
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = content if isinstance(content, dict) else {}
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no tensors; save torch.save(model.state_dict(), ...)")
    for key, value in state.items():
        if not isinstance(key, str) or not key.isprintable() or not _is_plain(value):
            raise UserError(
                f"{path}: {key!r} ({type(value).__name__}) is no named, dense tensor; save the state_dict alone"
            )
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _check_form(state: Iterable[str], own: Iterable[str], path: Path, name: str) -> None:
    """Training form and folded form have other weights: the way back from the second is lost."""
    of_file, of_model = (
        any(re.search(r"\b(reparam_conv|lkb_reparam|folded)\.", key) for key in s) for s in (state, own)
    )
    if of_file and not of_model:
        raise UserError(
            f"{path}: holds a reparameterized model; branches that are folded cannot be loaded into {name}: give the "
            "weights from before `reparameterize`"
        )
    if of_model and not of_file:
        raise UserError(f"{path}: holds a model in training form, but {name} is reparameterized; load first, then fold")


def _names(state: dict[str, Tensor], own: dict[str, Tensor], path: Path, name: str) -> dict[str, tuple[str, Tensor]]:
    """Our key -> (key of the file, tensor), of all forms; keys that no form knows stay as they are."""
    named = {}
    for old, value in state.items():
        if old not in own and (old in NO_WEIGHTS or _is_zero_bias(old, value, own, path, name)):
            continue
        new = old if old in own else _our_key(old)
        if new in named:
            raise UserError(f"{path}: {named[new][0]} and {old} stand for the same weight; take one out")
        transpose = new == PROJECTION and old.startswith("image_encoder.") and value.ndim == 2
        named[new] = (old, value.mT if transpose else value)
    return named


def _is_zero_bias(key: str, value: Tensor, own: dict[str, Tensor], path: Path, name: str) -> bool:
    """Whether it is the bias of timm's classifier, which our projection lacks; it must be zeros to be left out."""
    if PROJECTION not in own or key not in [f"{head}.bias" for head in HEADS]:
        return False
    if value.any():
        raise UserError(
            f"{path}: {key} is not zero, and our projection has no bias; load it as open_clip's own network, "
            f"open_clip:{name.removeprefix('open_clip:')}"
        )
    return True


def _our_key(key: str) -> str:
    tower, _, rest = key.partition(".")
    if tower == "image_encoder":
        rest = rest.removeprefix("model.")
        return PROJECTION if rest in ("head.proj", "classifier.proj") else "visual.trunk." + _replace(rest, APPLE_IMAGE)
    if tower == "text_encoder":
        return "text." + _replace(rest, APPLE_TEXT)
    if tower in OLD_TEXT:
        return "text." + key
    return PROJECTION if key in [f"{head}.weight" for head in HEADS] else key


def _replace(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        key = re.sub(pattern, replacement, key)
    return key


def _check_keys(named: dict[str, tuple[str, Tensor]], own: dict[str, Tensor], path: Path, name: str) -> None:
    faults = {
        "missing": [key for key in own if key not in named],
        "unexpected": [old for new, (old, _) in named.items() if new not in own],
        "of another shape or kind": [
            f"{old}: {_describe(value)} for {_describe(own[new])}"
            for new, (old, value) in named.items()
            if new in own and not _fits(value, own[new])
        ],
    }
    if any(faults.values()):
        shapes = {old: tuple(value.shape) for old, value in named.values()}
        like = [mark for mark, (key, shape) in APPLE_MARKS.items() if shapes.get(key) == shape and mark != name]
        found = "; ".join(f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys)
        raise UserError(f"{path}: not weights of {name}{f', but like {like[0]}' if like else ''}; keys: {found}")


def _fits(value: Tensor, target: Tensor) -> bool:
    """The same shape but for axes of length 1, which Apple has more of, and no integers in the place of reals."""
    same_shape = [n for n in value.shape if n != 1] == [n for n in target.shape if n != 1]
    return same_shape and value.is_floating_point() == target.is_floating_point()


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
