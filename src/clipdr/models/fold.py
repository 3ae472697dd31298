"""Folding a trained network for inference."""

import copy


def reparameterize(model):
    """A copy of a model or tower, in evaluation mode, with every train-time branch folded; the original is left alone.

    Folded are MobileOne and RepMixer blocks, large-kernel convolutions and positional encodings of the image tower
    (by timm) and the Text-RepMixer blocks (MobileCLIP, section 4). Batch norms inside feed-forward blocks, in front of
    attention and in the stem of MobileCLIP-B are no branches: they stay, as in the paper's parameter counts. Folding is
    done in float64 with the running statistics; a folded model can be given again, and cannot be trained.
    """
    from timm.utils import reparameterize_model

    folded = copy.deepcopy(model)
    if not getattr(model, "folded", False):  # timm's blocks cannot be folded twice
        dtype = next(model.parameters()).dtype
        folded = reparameterize_model(folded.double(), inplace=True).to(dtype).requires_grad_(False)
        folded.folded = True
    return folded.eval()  # at the end, for the new convolutions too
