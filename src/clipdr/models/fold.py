"""Folding a trained network for inference."""

import copy

FOLDING = ("fuse", "reparameterize", "switch_to_deploy")  # methods by which timm folds a module


def reparameterize(model):
    """A copy of a model or tower, in evaluation mode, with every train-time branch folded; the original is left alone.

    Folded are MobileOne and RepMixer blocks, large-kernel convolutions and positional encodings of the image tower
    (by timm) and the Text-RepMixer blocks (MobileCLIP, section 4). Batch norms inside feed-forward blocks, in front of
    attention and in the stem of MobileCLIP-B are no branches: they stay, as in the paper's parameter counts. Folding is
    done in float64 with the running statistics; a folded model can be given again, and cannot be trained.
    """
    return fold(copy.deepcopy(model))


def fold(model):
    """The model itself, folded in the same way, where no copy of a large one is wanted."""
    from timm.utils import reparameterize_model

    if not getattr(model, "folded", False):  # timm's blocks cannot be folded twice
        dtype = next(model.parameters()).dtype
        for module in model.modules():  # no other is touched, and float64 takes twice the memory
            if any(hasattr(module, name) for name in FOLDING):
                module.double()
        model = reparameterize_model(model, inplace=True).to(dtype).requires_grad_(False)
        model.folded = True
    return model.eval()  # at the end, for the new convolutions too
