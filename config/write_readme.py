"""Write config/README.md from the schemas: `python config/write_readme.py`.

Keys, what they say and what they may be are the schemas'; only the paragraphs around the tables stand here.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "src"))
from clipdr.evaluate.kinds import schemas as task_kinds  # noqa: E402
from clipdr.schema import load_yaml  # noqa: E402

SCHEMAS = REPO / "workflow/schemas"
START = """# Configuration

<!-- Written by `python config/write_readme.py` out of workflow/schemas. -->

Everything here is science, but for `resources` of a scale, what its jobs ask a cluster for; on which cluster stands in
`profiles/`. All files are checked against
`workflow/schemas/` before any job starts, and tasks by their kinds: an unknown key, a word that nothing defines or a
contradiction is one line that names the file, the key and the fix.

An experiment says what a table varies, in the paper's words ("DataComp-12M", "strong", "ensemble"). A scale says what
these words mean at one size of data and budget. `<name>` stands for a word of your own, `[]` for each entry of a list.
"""
CONFIG = """What a plain `snakemake --cores all` builds. `--config scale=ci experiments=table2` changes it for one call.
The `experiments` of a scale go before these."""
SCALES = """A word of an experiment is a key here: `datasets`, `augmentations`, `teachers`, `models`,
`evaluation.columns`.

A scale with a `base` has all that the other one says, key by key, but for what it says itself.

Under `papers`, one paper may mean something else by a word; the others see nothing of it. An experiment that this scale
cannot have stands under `undefined` with the reason."""
TRAINING = """The recipe of a scale's `training`. A row of an experiment may change any of its keys, under
`settings.training`."""
MIXTURES = """Mixtures of experts, of a scale's `mixture`, of `settings.mixture` of an experiment and of a model, whose
losses have no weights."""
POOLS = """What a scale's `pool` may say, by its `kind`."""
ZOOS = """What a scale's `zoo` may say, by its `kind`. Teachers and captioner that are trained here have the recipe of
the scale's `training`, unless they name a value of their own."""
OBJECTIVES = """What a run minimises: `settings.objective` of an experiment names one. Each has a schema in
`workflow/schemas/objectives` and a module of the same name in `src/clipdr/losses`."""
EXPERIMENTS = """A folder for each paper, a file for each table: `snakemake --cores all <paper>-<name>` builds it, and
MobileCLIP's are called by `<name>` alone too. `snakemake --cores 1 list` shows them all.

An experiment names no dataset size, no batch size and no GPU. A row with `settings` is trained, and must then have
`model`, `data.dataset`, `data.augmentation`, `data.captions` and `objective.name`, of its own or in the common
`settings`. Its own keys win, one by one; where it names another objective, nothing of the common one stays. A row that
says `init` starts from the weights of another row's run of the same seed, or of a checkpoint; if it says `mixture`,
too, those may be a dense model's. A row that names a `checkpoint` is what the scale's `checkpoints` says of it. Any
other row has only published accuracy.

Beside the columns that a scale defines there are four network columns, the same at every scale: `Params img (M)`,
`Params txt (M)`, `Latency img (ms)` and `Latency txt (ms)`. They are counted and measured on the row's full-size
`network`, with random weights. A column shows ours, the paper's, or both, whatever there is; one with neither is
refused. A network with `:` or `/` in its name must be a model of `models/`, unless it begins with `open_clip:`; other
names may be open_clip's, which only the job that measures them can tell. Two more columns, `GMACs` and `training
GMACs`, are counted on the models and runs of the scale."""
TASKS = """How a task of a suite is read and scored: its `kind`, a module of `src/clipdr/evaluate/kinds`, which says
what a task's folder must have."""
MODELS = """A model is a pair of towers. Names are shared by all files; scales, experiments and
`clipdr.models.create.create_model` use them."""
TOWERS = """What else a tower may say is open_clip's business. Words that need saying:

| key of a tower | what it says |
|---|---|
| image: `timm_model_name`, `timm_pool`, `timm_proj` | A network of timm, its pooling, and a projection to `embed_dim` (`linear` has no bias) |
| image: `layers`, `width`, `head_width`, `patch_size` | A ViT instead. `image_size` is the side of the input in pixels for both |
| image: `stem_padding` | See [models](../docs/models.md) |
| text: `context_length`, `vocab_size`, `width`, `heads`, `layers` | Tokens of a text, entries of the tokenizer (the scale's `zoo.vocab_size`), and the transformer |
| text: `no_causal_mask` | `true` if a token may look at those that follow it |
| text: `hf_tokenizer_name` | `beside-this-file` if the tokenizer is trained on the pool; CLIP's own without the key. Then `pool_type: eos`, and `pad_id` 0 and `eos_id` 2 are that tokenizer's |
"""  # noqa: E501
KINDS = {
    "object": "keys and values",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def render() -> str:
    """The whole page."""
    sections = {
        "`config.yaml`": (CONFIG, _table("config")),
        "Scales: `scales/<scale>.yaml`": (SCALES, _table("scale")),
        "Training": (TRAINING, _table("training")),
        "Mixtures": (MIXTURES, _table("mixture")),
        "Pools": (POOLS, *_kinds("pools")),
        "Zoos": (ZOOS, *_kinds("zoos")),
        "Objectives": (OBJECTIVES, *_kinds("objectives")),
        "Experiments: `experiments/<paper>/<name>.yaml`": (EXPERIMENTS, _table("experiment")),
        "Suites: `suites/<suite>.yaml`": (_table("suite"),),
        "Kinds of tasks": (TASKS, *(_section(kind, schema) for kind, schema in task_kinds().items())),
        "Models: `models/<file>.yaml`": (MODELS, _table("models"), TOWERS),
    }
    parts = [START.rstrip()]
    for title, texts in sections.items():
        parts += [f"## {title}", *(text.rstrip() for text in texts)]
    return "\n\n".join(parts) + "\n"


def _kinds(folder: str) -> list[str]:
    """A subsection for each schema of a folder, which are kinds of one thing."""
    return [
        _section(path.name.removesuffix(".schema.yaml"), load_yaml(path))
        for path in sorted((SCHEMAS / folder).glob("*.schema.yaml"))
    ]


def _section(kind: str, schema: dict) -> str:
    return f"### `{kind}`\n\n{schema['description']}.\n\n{table(schema)}"


def _table(kind: str) -> str:
    return table(load_yaml(SCHEMAS / f"{kind}.schema.yaml"))


def table(schema: dict) -> str:
    """The keys of a schema. Keys of one definition that stand in several places share a line."""
    lines: dict[tuple, list[str]] = {}
    for key, origin, what, value in _keys(schema, schema.get("$defs", {})):
        lines.setdefault((origin, what, value), []).append(f"`{key}`")
    rows = [f"| {', '.join(keys)} | {what} | {value} |" for (_, what, value), keys in lines.items()]
    return "\n".join(["| key | what it says | value |", "|---|---|---|", *rows])


def _keys(schema: dict, definitions: dict, path: str = "", origin: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, the same as its definition calls it, description, what it may be) of every key below `path`."""
    if schema.get("type") == "array" and "properties" in schema["items"]:
        schema, path, origin = schema["items"], f"{path}[]", f"{origin}[]"
    named = {
        f".{key}": (entry, key in schema.get("required", [])) for key, entry in schema.get("properties", {}).items()
    }
    if "patternProperties" in schema:
        (entry,) = schema["patternProperties"].values()
        named[".<name>"] = (entry, True)
    for key, (entry, required) in named.items():
        definition = entry.get("$ref", "").rpartition("/")[2]
        entry = {**definitions.get(definition, {}), **entry}
        value = _value(entry, definitions)
        if not required:
            value += f"; `{_plain(entry['default'])}` if left out" if "default" in entry else "; optional"
        where, at = f"{path}{key}", f"{origin}{key}"
        yield where.lstrip("."), at, _cell(entry["description"]), value
        yield from _keys(entry, definitions, where, f"#{definition}" if definition and "properties" in entry else at)


def _value(entry: dict, definitions: dict) -> str:
    entry = {**definitions.get(entry.get("$ref", "").rpartition("/")[2], {}), **entry}
    if "const" in entry:
        return f"`{_plain(entry['const'])}`"
    if "enum" in entry:
        *words, last = [f"`{_plain(word)}`" for word in entry["enum"]]
        return f"{', '.join(words)} or {last}"
    if entry["type"] == ["array", "null"]:
        return f"{_value({**entry, 'type': 'array'}, definitions)}; or `null`"
    if entry["type"] == "array":
        number = f" of {entry['minItems']}" if "maxItems" in entry else ""
        return f"list{number}" + ("" if "properties" in entry["items"] else f": {_value(entry['items'], definitions)}")
    if "pattern" in entry:
        return "name, or list of names" if "array" in entry["type"] else "name"
    kinds = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
    limits = ", ".join(f"{sign} {_plain(entry[key])}" for key, sign in LIMITS.items() if key in entry)
    words = [f"{KINDS[kind]} {limits}".strip() if kind in ("integer", "number") else KINDS[kind] for kind in kinds]
    return " or ".join(words)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text


if __name__ == "__main__":
    (REPO / "config/README.md").write_text(render(), encoding="utf-8")
    print("config/README.md")
