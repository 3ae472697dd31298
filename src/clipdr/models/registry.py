"""Names of models: those of config/models, and open_clip's own.

Where both know a name, it means the paper's network as config/models has it; `open_clip:<name>` is always open_clip's.
"""

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from clipdr.errors import UserError, listed, nearest
from clipdr.schema import REPOSITORY, load

OPEN_CLIP = "open_clip:"


def load_models(root: Path) -> dict[str, dict]:
    """Name -> `{"model_cfg": …, "preprocess_cfg": …}`, of every model in config/models/*.yaml."""
    models: dict[str, dict] = {}
    for path in sorted((Path(root) / "config/models").glob("*.yaml")):
        source = f"config/models/{path.name}"
        data = load(root, source, "models")
        for name, model in data["models"].items():
            if name in models:
                raise UserError(f"{source}: models: {name!r} stands in another file of config/models too; rename one")
            models[name] = _model(data, name, model, source)
    return models


def configuration(name: str, preprocess_cfg: dict | None = None) -> dict:
    """`{"model_cfg": …, "preprocess_cfg": …}` of a model; the latter is missing if nobody says it.

    Args:
        name: a name in config/models, or of open_clip.
        preprocess_cfg: `{"mean": …, "std": …, "interpolation": …}` to use instead.

    Raises:
        UserError: an unknown name, with the nearest one, or half a `preprocess_cfg`.
    """
    config = copy.deepcopy(_known().get(name) or _of_open_clip(name))
    if preprocess_cfg is not None:
        for key in ("mean", "std", "interpolation"):
            if key not in preprocess_cfg:
                raise UserError(f"{name}: preprocess_cfg has no {key!r}; add it, or open_clip takes OpenAI's")
        config["preprocess_cfg"] = preprocess_cfg
    return config


def open_clip_name(name: str) -> str | None:
    """The name that open_clip has for the model, or None if it is one of config/models."""
    return None if name in _known() else name.removeprefix(OPEN_CLIP)


@cache
def _known() -> dict[str, dict]:
    return load_models(REPOSITORY)


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
    }
    return {"model_cfg": model_cfg, "preprocess_cfg": dict(data["preprocess_cfg"])}


def _of_open_clip(name: str) -> dict:
    import open_clip

    plain = name.removeprefix(OPEN_CLIP)
    if plain not in open_clip.list_models():  # `hf-hub:` and `local-dir:`, which open_clip would fetch, are not
        raise UserError(
            f"model {name!r} is not known{nearest(name, [*_known(), *open_clip.list_models()])}; "
            "config/models and `python -c 'import open_clip; print(open_clip.list_models())'` have the names"
        )
    model_cfg = open_clip.get_model_config(plain)
    preprocess_cfg = _published_preprocessing(plain)
    return {"model_cfg": model_cfg, **({"preprocess_cfg": preprocess_cfg} if preprocess_cfg else {})}


def _published_preprocessing(name: str) -> dict | None:
    """What all of a model's published weights were trained with, or None if there are none or they differ."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    keys = ("mean", "std", "interpolation", "resize_mode")
    found = []
    for tag in list_pretrained_tags_by_model(name):
        published = get_pretrained_cfg(name, tag)
        found.append({key: published[key] for key in keys if key in published})
    return found[0] if found and all(entry == found[0] for entry in found) else None
