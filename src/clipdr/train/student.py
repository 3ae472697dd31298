"""The student: images and texts in, embeddings out, on a device and in a precision.

Shape suffixes: B batch, C channels, S image side, L context length, D embedding width, M texts of all kinds.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from clipdr.errors import UserError
from clipdr.models.folder import preprocessing

Output = tuple[dict[str, Tensor], dict[str, Tensor], Tensor, dict[str, Tensor]]


class Student(nn.Module):
    """An open_clip model, and how it is run: `forward` gives embeddings by name, the scale, and losses of its own.

    `settings` has device, precision, channels_last, checkpointing, compile and tf32, see
    workflow/schemas/training.schema.yaml.
    """

    def __init__(self, model: nn.Module, settings: dict) -> None:
        super().__init__()
        self.model = model
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
        """Embeddings of images and texts, and the model's own parts of the loss: here none."""
        found = {name: self.model.encode_image(img, normalize=True) for name, img in images.items()}
        txt_MD = self.model.encode_text(torch.cat(list(texts.values())), normalize=True)
        sizes = [len(tokens) for tokens in texts.values()]
        return found, dict(zip(texts, txt_MD.split(sizes), strict=True)), {}

    def to_input(self, img_BCSS: Tensor) -> Tensor:
        """uint8 to float32 model input, (x / 255 - mean) / std per channel."""
        img = img_BCSS.float().div_(255.0).sub_(self.mean).div_(self.std)
        return img.contiguous(memory_format=self.layout)


def _checkpoint(model: nn.Module) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"training.checkpointing: this model cannot ({error!r}); set it to false") from None


def _float(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}
