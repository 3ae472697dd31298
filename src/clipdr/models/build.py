"""From a configuration to a network with random weights, out of open_clip's and timm's parts.

A configuration is open_clip's, `{"model_cfg": …, "preprocess_cfg": …}`, with four keys that open_clip lacks (and
refuses, so that it cannot build something else from our files):

* `text_cfg.mct: {attention_layers, kernel_size}` makes the text encoder a hybrid one, see `clipdr.models.mct`;
* `vision_cfg.stem_padding` pads the first convolution of MobileCLIP's ViT. The network that Apple trained pads by 1,
  timm's `vit_base_mci_224` and so open_clip's MobileCLIP-B by 0. Both give 14 x 14 patches; its windows do not overlap,
  so that with padding all patches lie one pixel further up and to the left;
* `vision_cfg.norm_eps` is the epsilon of an image tower's layer norms: 1e-5 in the ViT that Apple trained, 1e-6 in
  timm's;
* `vision_cfg.moe` and `text_cfg.moe` put mixtures of experts in the place of MLPs, see `clipdr.models.moe`.

Towers check their input, because most of them would take a wrong one and answer something.
"""

import copy

import torch
from torch import Tensor, nn

from clipdr.errors import UserError
from clipdr.mixtures import KEY, TOWERS


def build(config: dict, name: str) -> nn.Module:
    """open_clip's CustomTextCLIP, or CoCa if the configuration has a `multimodal_cfg`, in training mode.

    Weights come from torch's global generator. `visual` takes float images [B, 3, S, S] in the range that
    `preprocess_cfg` leaves, `text` int64 tokens [B, context_length]; both give [B, embed_dim].

    Raises:
        UserError: a configuration that open_clip or timm cannot build; it is called `name`.
    """
    import open_clip

    import clipdr.models.mini  # noqa: F401  registers timm models

    cfg = copy.deepcopy(config["model_cfg"])
    cfg.pop("custom_text", None)  # one form for all: towers `visual` and `text`
    # Weights of towers must not be fetched: they are random here, or loaded afterwards.
    cfg["vision_cfg"].pop("timm_model_pretrained", None)
    if "hf_model_name" in cfg["text_cfg"]:
        cfg["text_cfg"]["hf_model_pretrained"] = False
    mct = cfg["text_cfg"].pop("mct", None)
    stem_padding = cfg["vision_cfg"].pop("stem_padding", None)
    norm_eps = cfg["vision_cfg"].pop("norm_eps", None)
    experts = {tower: cfg[tower].pop(KEY, None) for tower in TOWERS.values()}
    try:
        model = (open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP)(**cfg)
    except (TypeError, ValueError, RuntimeError, AssertionError, OSError) as error:  # OSError: nothing to fetch from
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: open_clip cannot build this model: {reason}") from error
    if mct is not None and cfg.get("quick_gelu"):
        raise UserError(
            f"{name}: text_cfg.mct has GELU, quick_gelu would change its attention blocks alone; take one out"
        )
    if mct is not None:
        _make_hybrid(model.text, {"mlp_ratio": cfg["text_cfg"].get("mlp_ratio", 4.0), **mct}, name)
    _fit_projection(model.visual)
    if stem_padding is not None:
        _pad_stem(model.visual, stem_padding, name)
    if norm_eps is not None:
        _set_norm_eps(model.visual, norm_eps, name)
    for tower, module in (("vision_cfg", model.visual), ("text_cfg", model.text)):
        if experts[tower] is not None:
            _make_sparse(module, experts[tower], f"{name}: {tower}")
    if "multimodal_cfg" in cfg:  # open_clip (3.3, its issue 554) leaves this weight as memory happened to be
        weight = model.text_decoder.text_projection
        nn.init.normal_(weight, std=len(weight) ** -0.5)
    elif isinstance(model.text, open_clip.transformer.TextTransformer):  # CoCa's takes growing texts in `generate`
        model.text.register_forward_pre_hook(_check_tokens, with_kwargs=True)
    model.visual.register_forward_pre_hook(_check_image, with_kwargs=True)
    _set_preprocessing(model, config.get("preprocess_cfg"), name)
    return model


def _make_hybrid(text: nn.Module, mct: dict, name: str) -> None:
    from clipdr.models.mct import make_hybrid

    try:
        make_hybrid(text, **mct)
    except UserError as error:
        raise UserError(f"{name}: text_cfg.{error}") from None
    except TypeError as error:  # a key that is missing or unknown
        raise UserError(f"{name}: text_cfg.mct {str(error).removeprefix('make_hybrid() ')}") from None


def _make_sparse(tower: nn.Module, experts: dict, name: str) -> None:
    from clipdr.models.moe import make_sparse

    make_sparse(tower, experts, name)


def _fit_projection(visual: nn.Module) -> None:
    """open_clip (3.3) overlooks the layer that some of timm's networks, like MobileNetV3, have behind the pooling."""
    width = getattr(getattr(visual, "trunk", None), "head_hidden_size", None)
    pools_itself = hasattr(getattr(visual, "head", None), "pool")
    proj = getattr(getattr(visual, "head", None), "proj", None)
    if width and proj is not None and not pools_itself and proj.in_features != width:
        visual.head.proj = nn.Linear(width, proj.out_features, bias=proj.bias is not None)


def _pad_stem(visual: nn.Module, padding: int, name: str) -> None:
    from timm.models.vision_transformer_hybrid import ConvStem

    stem = getattr(getattr(getattr(visual, "trunk", None), "patch_embed", None), "backbone", None)
    if not isinstance(stem, ConvStem):
        raise UserError(f"{name}: vision_cfg.stem_padding is for timm's vit_base_mci_224; take it out")
    stem[0].conv.padding = (padding, padding)


def _set_norm_eps(visual: nn.Module, eps: float, name: str) -> None:
    norms = [module for module in visual.modules() if isinstance(module, nn.LayerNorm)]
    if not norms:
        raise UserError(f"{name}: vision_cfg.norm_eps is for networks with layer norms; take it out")
    for norm in norms:
        norm.eps = eps


def _set_preprocessing(model: nn.Module, preprocess_cfg: dict | None, name: str) -> None:
    """Where open_clip's functions look for it; without one, nothing is there to be used by mistake."""
    if preprocess_cfg is None:
        return
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    for key in ("mean", "std", "interpolation"):  # what is missing, open_clip would take from OpenAI
        if preprocess_cfg.get(key) is None:
            raise UserError(f"{name}: preprocess_cfg has no {key!r}; add it")
    for key in ("mean", "std"):
        if not isinstance(preprocess_cfg[key], list | tuple) or len(preprocess_cfg[key]) != 3:
            raise UserError(f"{name}: preprocess_cfg has {key} {preprocess_cfg[key]}; write one number per channel")
    if min(preprocess_cfg["std"]) <= 0:
        raise UserError(f"{name}: preprocess_cfg has std {preprocess_cfg['std']}; write numbers above 0")
    cfg = {**preprocess_cfg, "size": model.visual.image_size}
    try:
        model.preprocess = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    except (TypeError, ValueError, AssertionError) as error:  # the last one has no text
        raise UserError(f"{name}: open_clip cannot use preprocess_cfg {preprocess_cfg} ({error}); correct it") from None
    set_model_preprocess_cfg(model, cfg)


def image_side(visual: nn.Module) -> int:
    """Side of the images that an image tower takes, in px."""
    size = visual.image_size
    return size if isinstance(size, int) else size[0]


def _check_image(visual: nn.Module, args: tuple[Tensor], kwargs: dict[str, Tensor]) -> None:
    (img,), side = (*args, *kwargs.values()), image_side(visual)
    if img.ndim != 4 or tuple(img.shape[1:]) != (3, side, side):
        raise UserError(
            f"images have shape {list(img.shape)}; the model takes [batch, 3, {side}, {side}]: use its `preprocess`"
        )
    if not torch.is_floating_point(img):
        raise UserError(f"images are {img.dtype}; the model takes floating point numbers: use its `preprocess`")
    dtype = next(visual.parameters()).dtype
    if img.dtype != dtype and not torch.is_autocast_enabled(img.device.type):
        raise UserError(f"images are {img.dtype}, the model's weights {dtype}; convert one of them, or use autocast")


def _check_tokens(text: nn.Module, args: tuple[Tensor], kwargs: dict[str, Tensor]) -> None:
    (tokens,), length = (*args, *kwargs.values()), text.context_length
    if tokens.dtype not in (torch.int64, torch.int32):
        raise UserError(f"tokens are {tokens.dtype}; the model takes int64 or int32: use its `tokenizer`")
    if tokens.ndim != 2 or tokens.shape[1] != length:
        raise UserError(
            f"tokens have shape {list(tokens.shape)}; the model takes [batch, {length}]: use its `tokenizer`"
        )
