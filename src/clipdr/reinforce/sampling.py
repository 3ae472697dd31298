"""Nucleus sampling from a CoCa captioner: the image is encoded once, however many captions are drawn of it.

open_clip's `generate` encodes the image anew for every caption, and draws all images of a batch from one generator, so
that captions depend on what else is captioned beside them. Here each caption has a generator of its own. What is drawn,
and from what, is the same: open_clip 3.3.0 cuts the nucleus before it divides by the temperature.

Shape suffixes: N images, L tokens so far, V vocabulary, Q image tokens, D their width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def encode(captioner, img_NCSS: Tensor) -> Tensor:
    """What the decoder attends to: image tokens [N, Q, D] of images that are normalised for the captioner."""
    _, tokens_NQD = captioner.visual(img_NCSS)
    return tokens_NQD


@torch.no_grad()
def sample(captioner, tokens_NQD: Tensor, settings: dict, generators: Sequence[np.random.Generator]) -> Tensor:
    """One caption per image, drawn with its generator: int64 tokens [N, max_tokens], start and end among them.

    Args:
        captioner: a CoCa model in evaluation mode, with its `tokenizer`.
        tokens_NQD: what `encode` gives.
        settings: top_p, temperature, max_tokens, min_tokens.
    """
    from transformers.generation.logits_process import MinLengthLogitsProcessor, TopPLogitsWarper

    device, length = tokens_NQD.device, settings["max_tokens"]
    start, end, pad = captioner.tokenizer.marks
    ends, nucleus = MinLengthLogitsProcessor(settings["min_tokens"], end, device), TopPLogitsWarper(settings["top_p"])
    # Always as many, so that an attempt begins at the same place of a generator whatever the one before it said.
    draws_NL = torch.from_numpy(np.stack([generator.random(length) for generator in generators])).to(device)
    out_NL = torch.full((len(tokens_NQD), 1), start, device=device)
    open_N = torch.ones(len(tokens_NQD), dtype=torch.bool, device=device)
    while out_NL.shape[1] < length - 1 and open_N.any():
        logits_NV = nucleus(out_NL, ends(out_NL, _next(captioner, tokens_NQD, out_NL)))
        drawn_N = _draw((logits_NV / settings["temperature"]).softmax(dim=1), draws_NL[:, out_NL.shape[1]])
        drawn_N = torch.where(open_N, drawn_N, pad)
        open_N = open_N & (drawn_N != end) & (drawn_N != pad)
        out_NL = torch.cat([out_NL, drawn_N[:, None]], dim=1)
    last_N = torch.where(open_N, end, pad)
    rest_NL = torch.full((len(out_NL), length - out_NL.shape[1] - 1), pad, device=device)
    return torch.cat([out_NL, last_N[:, None], rest_NL], dim=1)


def _next(captioner, tokens_NQD: Tensor, out_NL: Tensor) -> Tensor:
    """Logits of the next token [N, V]."""
    _, text_NLD = captioner.text(out_NL[:, -captioner.context_length :])
    return captioner.text_decoder(tokens_NQD, text_NLD)[:, -1].float()


def _draw(probabilities_NV: Tensor, draws_N: Tensor) -> Tensor:
    """The tokens at which the cumulated probabilities pass the draws, numbers in [0, 1): int64 [N]."""
    cumulated_NV = probabilities_NV.double().cumsum(dim=1)
    cumulated_NV = cumulated_NV / cumulated_NV[:, -1:]  # a sum of floats, which may end beside 1
    return torch.searchsorted(cumulated_NV, draws_N[:, None].contiguous(), right=True)[:, 0]
