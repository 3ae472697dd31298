"""config/models: pairs of towers, put together to open_clip's configurations.

Apart from clipdr.models, which builds them: rules and tables need the words, not torch.
"""

from collections.abc import Mapping
from pathlib import Path

from clipdr.errors import UserError, listed, nearest
from clipdr.mixtures import check_mixture, with_mixture
from clipdr.schema import defaults, load, validate


def load_models(root: Path) -> dict[str, dict]:
    """Name -> `{"model_cfg": …, "preprocess_cfg": …}`, of every model in config/models/*.yaml."""
    models: dict[str, dict] = {}
    for path in sorted((Path(root) / "config/models").glob("*.yaml")):
        source = f"config/models/{path.name}"
        data = load(root, source, "models")
        for name, model in data["models"].items():
            if name in models:
                raise UserError(f"{source}: models: {name!r} stands in another file of config/models too; rename one")
            config = _model(data, name, model, source)
            models[name] = (
                _mixed(config, model["mixture"], root, f"{source}: models.{name}") if "mixture" in model else config
            )
    return models


def _mixed(config: Mapping, mixture: Mapping, root: Path, where: str) -> dict:
    validate(mixture, "mixture", f"{where}.mixture", root)
    mixture = {**defaults("mixture", root), **mixture}
    check_mixture(mixture, f"{where}.mixture")
    return with_mixture(config, mixture)


def _model(data: Mapping, name: str, model: Mapping, source: str) -> dict:
    """open_clip's configuration of one model: its two towers put together."""
    for tower in ("image", "text"):
        if model[tower] not in data[tower]:
            hint = f"{nearest(model[tower], data[tower])} (known: {listed(data[tower])})"
            raise UserError(f"{source}: models.{name}.{tower}: {model[tower]!r} is not in {tower}{hint}")
    model_cfg = {
        "embed_dim": model["embed_dim"],
        "vision_cfg": dict(data["image"][model["image"]]),
        "text_cfg": {**data.get("text_cfg", {}), **data["text"][model["text"]]},
        **({"multimodal_cfg": dict(model["multimodal_cfg"])} if "multimodal_cfg" in model else {}),
        "custom_text": True,
        **({"quick_gelu": True} if model.get("quick_gelu") else {}),
    }
    preprocess_cfg = {**data["preprocess_cfg"], **model.get("preprocess_cfg", {})}
    return {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
