"""A published model, as the model folder that a trained one would be.

It is open_clip's, or one of config/models with a file of weights. Those of open_clip come from where its list of tags
says, or from a folder, for machines without a network: `<weights>/<model>/<tag>.safetensors` (or .bin, .pt).
Preprocessing is that of the tag, and so is the activation, which leaves no trace in the weights.
"""

from pathlib import Path

from clipdr.errors import UserError, listed, nearest
from clipdr.files import atomic_dir, reason, sha256_file
from clipdr.models.folder import random_model, save_weights, write_folder
from clipdr.models.registry import OPEN_CLIP, configuration
from clipdr.models.weights import load_pretrained
from clipdr.progress import log

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
SUFFIXES = (".safetensors", ".bin", ".pt")


def publish(settings: dict, weights: Path | None, output: Path) -> None:
    """Write a model folder of the weights that `settings` names.

    Args:
        settings: `model` and `pretrained`, open_clip's names of network and tag; or `model`, its `config` of
            config/models, and `file`. And `sha256` of the file, if given.
        weights: folder to take the file from; None to fetch it.
        output: the model folder.

    Raises:
        UserError: no such model, tag or file, another hash than the settings', no network, or weights of another model.
    """
    name = settings["model"]
    if "file" in settings:
        what, file, config = f"{name}, {settings['file']}", Path(settings["file"]), settings["config"]
        if not file.is_file():
            raise UserError(f"{file}, the weights of {name}, does not exist; put it there, or correct the scale")
    else:
        what, file, config = _of_open_clip(name, settings["pretrained"], weights)
    digest = sha256_file(file)
    if settings.get("sha256", digest) != digest:
        raise UserError(
            f"{file} has sha256 {digest}, but the scale says {settings['sha256']} of {what}; get the file again, or "
            "correct the scale"
        )
    with atomic_dir(output) as folder:
        write_folder(config, None, folder)
        if "file" not in settings:
            _write_tokenizer(name, config["model_cfg"]["text_cfg"], folder)
        model = random_model(config, 0, what)
        load_pretrained(model, file, what)
        save_weights(model, folder)
    log.info("%s: %s, sha256 %s", what, file, digest)


def _of_open_clip(name: str, tag: str, weights: Path | None) -> tuple[str, Path, dict]:
    """What errors call the model, the file of its weights, and its configuration with the tag's preprocessing."""
    entry = _entry(name, tag)
    file = _fetch(name, tag, entry) if weights is None else _find(Path(weights), name, tag)
    preprocess_cfg = {key: entry[key] for key in PREPROCESSING if key in entry}
    config = configuration(f"{OPEN_CLIP}{name}", preprocess_cfg)
    if entry.get("quick_gelu"):
        config["model_cfg"]["quick_gelu"] = True
    return f"{name}, {tag}", file, config


def _entry(name: str, tag: str) -> dict:
    """What open_clip's list says of a tag."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if name not in open_clip.list_models():
        raise UserError(f"zoo: open_clip has no model {name!r}{nearest(name, open_clip.list_models(), n=3)}")
    tags = list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise UserError(f"zoo: open_clip has no weights {tag!r} of {name}{nearest(tag, tags)} (it has {listed(tags)})")
    return get_pretrained_cfg(name, tag)


def _find(weights: Path, name: str, tag: str) -> Path:
    candidates = [weights / name / f"{tag}{suffix}" for suffix in SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(f"none of {listed(candidates)} exists; put the file there, or take out zoo.weights to fetch it")
    return found[0]


def _fetch(name: str, tag: str, entry: dict) -> Path:
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(entry))
    except (OSError, RuntimeError) as error:  # no network, a file that is not there, or another hash than the list's
        raise UserError(
            f"the weights {tag} of {name} cannot be fetched ({reason(error)}); try again with a network, or put the "
            f"file into a folder as {name}/{tag}.safetensors and name the folder as zoo.weights"
        ) from None


def _write_tokenizer(name: str, text_cfg: dict, folder: Path) -> None:
    """The files of a tokenizer of the hub; CLIP's own is a part of open_clip."""
    import open_clip

    if "hf_tokenizer_name" not in text_cfg:
        return
    try:
        open_clip.get_tokenizer(name).tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UserError(
            f"{name}: its tokenizer, {text_cfg['hf_tokenizer_name']} of the Hugging Face Hub, cannot be fetched "
            f"({reason(error)}); give the same command once with a network"
        ) from None
