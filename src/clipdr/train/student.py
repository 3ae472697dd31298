"""The student: images and texts in, embeddings out, on a device and in a precision.

Shape suffixes: B batch, C channels, S image side, L context length, D embedding width, M texts of all kinds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from clipdr.errors import UserError
from clipdr.models.folder import preprocessing
from clipdr.models.moe import auxiliary_losses

Output = tuple[dict[str, Tensor], dict[str, Tensor], Tensor, dict[str, Tensor]]


class Student(nn.Module):
    """An open_clip model, and how it is run: `forward` gives embeddings by name, the scale, and losses of its own.

    `settings` has device, precision, channels_last, checkpointing, compile and tf32, see
    workflow/schemas/training.schema.yaml. If `masked` is not 0, each image is embedded a second time without that share
    of its patches. If `image_only`, the text tower and the scale do not train, and texts are not embedded. `auxiliary`
    has the weights of the losses of mixtures of experts by name; a model that has none has no such losses.

    Raises UserError if patches are to be left out of a tower that is no ViT.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: dict,
        masked: float = 0.0,
        image_only: bool = False,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.image_only, self.auxiliary = model, image_only, dict(auxiliary or {})
        if image_only:
            model.text.requires_grad_(False)
            model.logit_scale.requires_grad_(False)
        self.patches = _patches(model.visual, masked) if masked else None
        _, mean, std = preprocessing(model)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.device_type, self.bfloat16 = settings["device"], settings["precision"] == "bfloat16"
        self.layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
        if settings["channels_last"]:
            model.to(memory_format=torch.channels_last)
        if settings["checkpointing"]:
            _checkpoint(model)
        if settings["compile"]:
            model.visual.compile()
            model.text.compile()
        if settings["tf32"]:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True

    def forward(self, images: dict[str, Tensor], texts: dict[str, Tensor]) -> Output:
        """(images [B, D], texts [B, D], scale, parts of the loss that are the model's own) by name, float32.

        Embeddings are L2-normalised. Images are uint8 [B, C, S, S], texts int64 tokens [B, L].
        """
        with torch.autocast(self.device_type, torch.bfloat16) if self.bfloat16 else nullcontext():
            img, txt, parts = self.embed({name: self.to_input(one) for name, one in images.items()}, texts)
        return _float(img), _float(txt), self.model.logit_scale.exp(), _float(parts)

    def embed(
        self, images: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings of images and, if they train, of texts, and the parts of the loss that are the model's own.

        Those are the losses of its mixtures, by tower, those of images as of the last of their names.
        """
        found = {name: self.model.encode_image(img, normalize=True) for name, img in images.items()}
        parts = self._parts("image", self.model.visual)
        if self.patches:
            with _left_out(*self.patches):
                found["masked"] = self.model.encode_image(images["image"], normalize=True)
        if self.image_only:
            return found, {}, parts
        txt_MD = self.model.encode_text(torch.cat(list(texts.values())), normalize=True)
        sizes = [len(tokens) for tokens in texts.values()]
        parts |= self._parts("text", self.model.text)
        return found, dict(zip(texts, txt_MD.split(sizes), strict=True)), parts

    def _parts(self, name: str, tower: nn.Module) -> dict[str, Tensor]:
        losses = auxiliary_losses(tower) if self.auxiliary and self.training else {}
        return {f"{key}/{name}": self.auxiliary[key] * loss for key, loss in losses.items() if self.auxiliary[key]}

    def to_input(self, img_BCSS: Tensor) -> Tensor:
        """uint8 to float32 model input, (x / 255 - mean) / std per channel."""
        img = img_BCSS.float().div_(255.0).sub_(self.mean).div_(self.std)
        return img.contiguous(memory_format=self.layout)


def _patches(visual: nn.Module, share: float) -> tuple[nn.Module, str, nn.Module]:
    """A ViT, the name of the layer in it that may leave out patches, and a layer that leaves out a share of them.

    At least one patch of each image stays, drawn from torch's generator; so do tokens that are no patches.
    """
    from timm.layers import PatchDropout

    trunk = getattr(visual, "trunk", visual)
    for name, others in (("patch_dropout", 1), ("patch_drop", getattr(trunk, "num_prefix_tokens", 0))):
        if hasattr(trunk, name):
            return trunk, name, PatchDropout(share, num_prefix_tokens=others)
    raise UserError(
        f"objective.mfd: the image tower of this model, {type(trunk).__name__}, has no patches to mask; train a ViT, "
        "or set mfd to 0"
    )


@contextmanager
def _left_out(trunk: nn.Module, name: str, dropout: nn.Module) -> Iterator[None]:
    usual = getattr(trunk, name)
    setattr(trunk, name, dropout)
    try:
        yield
    finally:
        setattr(trunk, name, usual)


def _checkpoint(model: nn.Module) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"training.checkpointing: this model cannot ({error!r}); set it to false") from None


def _float(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}
