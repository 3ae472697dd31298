"""How much a table's runs have to compute: for one image and one text at inference, and for one sample in training.

Multiply-accumulates are those of `clipdr.deploy.counts`. A training step is three times its forward pass, of the form
in training, with as much work of experts as their capacity has room for; so many texts per image as a run has captions.
What teachers compute, and the loss, is not counted.
"""

import json
from pathlib import Path

from clipdr.deploy.counts import TOWERS, macs
from clipdr.files import atomic_file
from clipdr.progress import progress

STEP = 3  # a forward pass, and twice as much backwards


def measure(settings: dict, output: Path) -> None:
    """Write a JSON file: row -> `gmacs` at inference, and `sample_gmacs` of a sample in training.

    Args:
        settings: `rows`, each a `row`, the `config` of its model, and the number of `texts` of a sample.

    Raises:
        UserError: a model that cannot be built.
    """
    found = {line["row"]: _work(line) for line in progress(settings["rows"], "rows counted", len(settings["rows"]))}
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _work(line: dict) -> dict[str, float]:
    texts = {"image": 1, "text": line["texts"]}
    at_inference = macs(line["config"], line["row"])
    in_training = macs(line["config"], line["row"], training=True)
    return {
        "gmacs": sum(at_inference.values()) / 1e9,
        "sample_gmacs": STEP * sum(in_training[tower] * texts[tower] for tower in TOWERS) / 1e9,
    }
