"""MCt, MobileCLIP's hybrid text encoder (section 4.1, Figure 4): open_clip's with convolutional blocks.

Of the encoder's blocks the first and the last ones are Text-RepMixer blocks, those in the middle stay open_clip's
attention blocks; embeddings, pooling and projection are open_clip's too. The convolutions are symmetric and see the
padding tokens, so an MCt is made with `no_causal_mask`, and only texts padded to the full context are comparable.

Shape suffixes: B batch, L tokens, D channels.
"""

import torch
from torch import Tensor, nn

from clipdr.errors import UserError


class RepMixer1d(nn.Module):
    """Token mixing by a depthwise 1-D convolution: x + s · (mixer(x) - norm(x)), with s per channel.

    In training form `mixer` is the sum of conv + batch norm and a batch norm alone, `norm` another batch norm;
    `reparameterize` folds all of it, with the skip connection, into one depthwise convolution.
    """

    def __init__(self, width: int, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.conv_bn, self.skip_bn, self.norm_bn = nn.BatchNorm1d(width), nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.layer_scale = nn.Parameter(torch.full((width, 1), 1e-5))
        self.folded: nn.Conv1d | None = None
        nn.init.trunc_normal_(self.conv.weight, std=0.02)

    def forward(self, x_BDL: Tensor) -> Tensor:
        """[B, D, L] -> [B, D, L]."""
        if self.folded is not None:
            return self.folded(x_BDL)
        mixed_BDL = self.conv_bn(self.conv(x_BDL)) + self.skip_bn(x_BDL)
        return x_BDL + self.layer_scale * (mixed_BDL - self.norm_bn(x_BDL))

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold into one convolution with bias, for the running statistics; a second call changes nothing."""
        if self.folded is not None:
            return
        gain_D, bias_D = _affine(self.conv_bn)
        kernel_D1K = self.conv.weight * gain_D[:, None, None]
        skip_gain_D, skip_bias_D = _affine(self.skip_bn)
        norm_gain_D, norm_bias_D = _affine(self.norm_bn)
        middle = self.conv.kernel_size[0] // 2
        kernel_D1K[:, 0, middle] += skip_gain_D - norm_gain_D
        scale_D = self.layer_scale[:, 0]
        kernel_D1K = kernel_D1K * scale_D[:, None, None]
        kernel_D1K[:, 0, middle] += 1.0
        folded = nn.utils.skip_init(
            nn.Conv1d,
            *(self.conv.in_channels, self.conv.out_channels, self.conv.kernel_size[0]),
            **{"padding": middle, "groups": self.conv.groups, "device": kernel_D1K.device, "dtype": kernel_D1K.dtype},
        )
        folded.weight.copy_(kernel_D1K)
        folded.bias.copy_(scale_D * (bias_D + skip_bias_D - norm_bias_D))
        self.folded = folded
        del self.conv, self.conv_bn, self.skip_bn, self.norm_bn, self.layer_scale


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """(gain, bias) per channel of a batch norm in evaluation mode."""
    gain_D = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain_D, norm.bias - norm.running_mean * gain_D


class ConvFFN(nn.Module):
    """A transformer's MLP with a depthwise 1-D convolution and batch norm in front."""

    def __init__(self, width: int, kernel_size: int, mlp_ratio: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.conv = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.c_fc, self.gelu, self.c_proj = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        for layer in (self.conv, self.c_fc, self.c_proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        for layer in (self.c_fc, self.c_proj):
            nn.init.zeros_(layer.bias)

    def forward(self, x_BDL: Tensor) -> Tensor:
        """[B, D, L] -> [B, L, D]."""
        return self.c_proj(self.gelu(self.c_fc(self.bn(self.conv(x_BDL)).transpose(1, 2))))


class TextRepMixerBlock(nn.Module):
    """RepMixer and ConvFFN, each on a skip connection, with the face of open_clip's `ResidualAttentionBlock`."""

    def __init__(self, width: int, kernel_size: int, mlp_ratio: float):
        super().__init__()
        self.token_mixer = RepMixer1d(width, kernel_size)
        self.mlp = ConvFFN(width, kernel_size, mlp_ratio)
        self.layer_scale = nn.Parameter(torch.full((width,), 1e-5))

    def get_weight_dtype(self) -> torch.dtype:
        return self.mlp.c_fc.weight.dtype

    def forward(self, x_BLD: Tensor, k_x: None = None, v_x: None = None, attn_mask: Tensor | None = None) -> Tensor:
        """[B, L, D] -> [B, L, D]; a convolution cannot mask, see `make_hybrid`."""
        assert attn_mask is None
        x_BDL = self.token_mixer(x_BLD.transpose(1, 2))
        return x_BDL.transpose(1, 2) + self.layer_scale * self.mlp(x_BDL)


def make_hybrid(text: nn.Module, attention_layers: int, kernel_size: int, mlp_ratio: float = 4.0) -> None:
    """Replace the outer blocks of open_clip's text transformer by Text-RepMixer blocks, in place.

    Args:
        text: open_clip's TextTransformer.
        attention_layers: blocks in the middle that keep attention (Table 5); an odd rest leaves one more block at
            the end than at the front.
        kernel_size: taps of all convolutions, odd (Table 18).

    Raises:
        UserError: a text transformer with a mask, more attention layers than blocks, or an even kernel.
    """
    if text.attn_mask is not None or text.use_pad_mask or text.cls_emb is not None:
        raise UserError(
            "mct needs no_causal_mask: true and neither use_pad_mask nor embed_cls; convolutions cannot mask"
        )
    blocks = text.transformer.resblocks
    if not 0 <= attention_layers <= len(blocks):
        raise UserError(f"mct.attention_layers is {attention_layers}; it must lie between 0 and layers ({len(blocks)})")
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise UserError(f"mct.kernel_size is {kernel_size}; it must be odd, so that a token stays in its place")
    front = (len(blocks) - attention_layers) // 2
    for n in range(len(blocks)):
        if not front <= n < front + attention_layers:
            blocks[n] = TextRepMixerBlock(text.width, kernel_size, mlp_ratio)
