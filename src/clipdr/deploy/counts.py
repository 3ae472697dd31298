"""Parameters and multiply-accumulates of both towers of a model, without its weights.

Decided here:
* A model is built, folded and run on torch's device `meta`: shapes alone, no numbers. It takes seconds and no memory.
* Neither tower owns the logit scale (nor SigLIP's bias beside it). All the rest is the image tower's or the text
  tower's; the text tower of a CoCa has its decoder, which predicts a caption from text and image.
* Of a mixture of experts the dense network is run, and what experts are more is added: `top_k` of them per token, as in
  evaluation, where none is dropped, on all tokens of a text; and the router. Parameters are active if a token needs
  them.
* GMACs are 1e9 multiply-accumulates of the folded network for one image, or one text of the full context: products of
  matrices, attention with its masked half, and convolutions with their padding. Biases, norms, activations, softmax
  and looking up embeddings count nothing, as usual; they are work all the same.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.progress import progress

TOWERS = {"image": "img", "text": "txt"}
TITLE = "Parameters and work of the models"
LEGEND = (
    "px: side of the images; tokens: context length; embed: width of the embeddings; img, txt: image and text tower. "
    "(M): millions of parameters, of the form used for inference, those of them that are active for a token (fewer in "
    "mixtures of experts), and of the form in training, without the logit scale. "
    "GMACs: 10⁹ multiply-accumulates of convolutions, attention and other products of matrices in the form used for "
    "inference, for one image or one text of full length."
)


def count(name: str) -> dict:
    """Counts of one model, in the form of results/networks/counts.json.

    Args:
        name: of config/models or of open_clip.

    Returns:
        `network`, `image_size` (px), `embed_dim`, `context_length` (tokens), and `image` and `text`, each with
        `params_train`, `params` (of the folded model), `params_active` (those of them that a token needs) and `gmacs`.

    Raises:
        UserError: an unknown name, or a configuration that cannot be built or whose parts do not fit together.
    """
    import torch

    from clipdr.models.build import build, image_side
    from clipdr.models.fold import reparameterize
    from clipdr.models.moe import mixtures_of
    from clipdr.models.registry import configuration

    config = configuration(name)
    with torch.device("meta"):
        model = build(config, name)
        folded = reparameterize(model)
    train, inference, work = _params(model), _params(folded), macs(config, name)
    idle = {tower: sum(_idle_params(m) for m in mixtures_of(tower_of(model, tower))) for tower in TOWERS}
    return {
        "network": name,
        "image_size": image_side(model.visual),
        "embed_dim": config["model_cfg"]["embed_dim"],
        "context_length": model.text.context_length,
    } | {
        tower: {
            "params_train": train[tower],
            "params": inference[tower],
            "params_active": inference[tower] - idle[tower],
            "gmacs": work[tower] / 1e9,
        }
        for tower in TOWERS
    }


def macs(config: dict, name: str, training: bool = False) -> dict[str, int]:
    """Tower -> multiply-accumulates of a forward pass, for one image and one text.

    Args:
        config: `{"model_cfg": …, "preprocess_cfg": …}`.
        name: of the model in errors.
        training: whether of the form in training, where experts have as much work as there is room for.
    """
    import torch

    from clipdr.mixtures import dense
    from clipdr.models.build import build, image_side
    from clipdr.models.fold import reparameterize
    from clipdr.models.moe import mixtures_of

    with torch.device("meta"):
        model = build(config, name)
        plain = build({**config, "model_cfg": dense(config["model_cfg"])}, name)
        found = _macs(plain if training else reparameterize(plain), image_side(model.visual), name)
    for tower in TOWERS:
        net = tower_of(model, tower)
        for mixture in mixtures_of(net):
            found[tower] += round(_tokens(net) * _macs_of_token(mixture, training))
    return found


def tower_of(model, tower: str):
    """A tower of a model by its name here."""
    return model.visual if tower == "image" else model.text


def _tokens(tower) -> int:
    """Of an image, patches and class token, or of a text of full length."""
    return tower.context_length if hasattr(tower, "context_length") else tower.positional_embedding.shape[0]


def _macs_of_token(mixture, training: bool) -> float:
    """What a mixture computes for a token, more than the MLP in whose place it is."""
    _, width, hidden = mixture.weight_in.shape
    number = mixture.capacity if training else mixture.top_k
    return (number - 1) * 2 * width * hidden + width * mixture.experts


def _idle_params(mixture) -> int:
    """Parameters of the experts that a token did not choose."""
    from clipdr.models.moe import COPY_OF

    sizes = (getattr(mixture, name).numel() for name in COPY_OF)
    return sum(sizes) * (mixture.experts - mixture.top_k) // mixture.experts


def _params(model) -> dict[str, int]:
    """Tower -> number of parameters; what two modules share counts once."""
    sizes = {"image": 0, "text": 0}
    for name, parameter in model.named_parameters():
        if name not in ("logit_scale", "logit_bias"):
            sizes["image" if name.startswith("visual.") else "text"] += parameter.numel()
    return sizes


def _macs(model, side: int, name: str) -> dict[str, int]:
    """Tower -> multiply-accumulates of a model on the device `meta`, for one image and one text."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    image, text = torch.empty(1, 3, side, side), torch.zeros(1, model.text.context_length, dtype=torch.int64)
    # Attention as two products: the counter has no formula for some of the fused kernels, and would pass over them.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        try:
            model(image, text)
        except (RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(
                f"{name}: its parts do not fit together ({reason}); correct it in config/models, or leave it out"
            ) from error
    of_image = sum(counter.get_flop_counts()[f"{type(model).__name__}.visual"].values())
    # The counter counts a multiplication and an addition.
    return {"image": of_image // 2, "text": (counter.get_total_flops() - of_image) // 2}


def count_all(names: Iterable[str], output: Path | None = None, table: Path | None = None) -> list[dict]:
    """`count` of each name, once; the log shows the progress.

    Args:
        names: of config/models or of open_clip.
        output: JSON file for the list.
        table: path without ending, for a table in .csv, .md and .tex.

    Raises:
        UserError: as `count`; then nothing is written.
    """
    names = list(dict.fromkeys(names))
    counts = list(progress(map(count, names), "models counted", len(names)))
    texts = {output: json.dumps(counts, indent=1, ensure_ascii=False) + "\n"} if output else {}
    if table:
        parts = {".csv": csv(counts), ".md": f"# {TITLE}\n\n{markdown(counts)}\n\n{LEGEND}\n", ".tex": latex(counts)}
        texts |= {table.with_name(table.name + suffix): text for suffix, text in parts.items()}
    for path, text in texts.items():
        with atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    return counts


def csv(counts: list[dict]) -> str:
    """All counts, exact, one line per model."""
    import pandas as pd

    return pd.json_normalize(counts, sep=" ").to_csv(index=False, lineterminator="\n")


def markdown(counts: list[dict]) -> str:
    """The table for a reader, without a line end; `LEGEND` explains its head."""
    from clipdr.text import markdown_table

    return markdown_table([_line(entry) for entry in counts])


def latex(counts: list[dict]) -> str:
    """A booktabs tabular, to be put into a table environment."""
    from clipdr.text import tex

    lines = [_line(entry) for entry in counts]
    rows = [" & ".join(map(tex, cells)) + r" \\" for cells in (lines[0], *(line.values() for line in lines))]
    start = [
        f"% {TITLE}. M: millions, in the form used for inference if not in training. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
        r"\toprule",
    ]
    return "\n".join([*start, rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def _line(entry: dict) -> dict[str, str]:
    line = {"network": entry["network"]}
    line |= {"px": str(entry["image_size"]), "tokens": str(entry["context_length"]), "embed": str(entry["embed_dim"])}
    for tower, short in TOWERS.items():
        line[f"{short} (M)"] = _short(entry[tower]["params"] / 1e6)
        line[f"{short} active (M)"] = _short(entry[tower]["params_active"] / 1e6)
        line[f"{short} in training (M)"] = _short(entry[tower]["params_train"] / 1e6)
    return line | {f"{short} GMACs": _short(entry[tower]["gmacs"]) for tower, short in TOWERS.items()}


def _short(value: float) -> str:
    """One decimal, as in the paper; three below one, where the miniatures are."""
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"
