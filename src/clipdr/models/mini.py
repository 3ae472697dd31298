"""Miniature MCi and FastViT as timm models: the blocks of `fastvit_mci*` and `fastvit_ma36` in small widths and depths.

Images of 32 px reach the last stage as a single position: attention there sees nothing else, and the 3 x 3 convolutions
mostly padding. MCi has expansion 3 and more depth (section 4.2 of MobileCLIP) and, as timm's `fastvit_mci*`,
squeeze-and-excite and an activation in the downsampling.
"""

from functools import partial

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc

default_cfgs = generate_default_cfgs({"clipdr_mini_mci": {}, "clipdr_mini_fastvit": {}})  # timm asks for one per model
_POSITIONS = (None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7)))
_MIXERS = ("repmixer", "repmixer", "repmixer", "attention")


@register_model
def clipdr_mini_mci(pretrained: bool = False, **kwargs) -> FastVit:
    """MCi with a third of MCi0's blocks and a quarter of its width."""
    se = (False, False, True, True)
    return _fastvit(
        "clipdr_mini_mci", layers=(1, 2, 3, 1), mlp_ratios=(3,) * 4, se_downsamples=se, lkc_use_act=True, **kwargs
    )


@register_model
def clipdr_mini_fastvit(pretrained: bool = False, **kwargs) -> FastVit:
    """FastViT with about as many parameters as `clipdr_mini_mci`."""
    return _fastvit("clipdr_mini_fastvit", layers=(1, 1, 2, 1), mlp_ratios=(4,) * 4, **kwargs)


def _fastvit(name: str, **kwargs) -> FastVit:
    return build_model_with_cfg(
        FastVit, name, False, embed_dims=(16, 32, 64, 128), pos_embs=_POSITIONS, token_mixers=_MIXERS, **kwargs
    )
