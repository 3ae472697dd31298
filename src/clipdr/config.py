"""Reading and checking everything in config/, so that a typing error is one clear line before any job starts.

Decided here: a file that can be misread is refused (a key that stands twice, a key that is no text, .nan and .inf);
`1e-3` is a number, as people expect and YAML 1.1 does not; 300.0 is no integer. The schemas say what one file may
say, `check` what the files must say together. A UserError is one line that names the file, the key and the fix.

`root` is the repository folder everywhere, so that nothing depends on the working directory.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import jsonschema
import yaml

from clipdr.errors import UserError, nearest
from clipdr.experiments import NETWORK_COLUMNS, evaluation_columns, has_runs, plan

SCHEMAS = Path(__file__).parents[2] / "workflow" / "schemas"

# YAML and JSON Schema take 300.0 for an integer, Python's slices and ranges do not.
_INTEGER = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_INTEGER)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what YAML would silently misread."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _refusal(key_node, "merge keys (<<) are not read; write the keys out")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(key_node, f"the key {key} is no text; put it in quotes")
            if key in seen:
                raise _refusal(key_node, f"the key {key!r} stands twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_finite(self, node):
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise _refusal(node, f"{node.value} is no finite number; write one")
        return value


def _refusal(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_finite)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(path: Path | str, source: str | None = None) -> dict:
    """The mapping in a YAML file. Errors call the file `source`, or else by its path.

    Raises UserError if the file is missing (with the nearest name beside it), is no YAML, has a key twice, a key that
    is no text or a number that is not finite, or holds anything but a mapping.
    """
    path = Path(path)
    source = source or str(path)
    try:
        data = yaml.load(_read(path, source), _Loader)
    except yaml.YAMLError as error:
        raise UserError(_yaml_problem(error, source)) from None
    if not isinstance(data, dict):
        raise UserError(f"{source}: holds {_kind(data)}, not keys with values; write `key: value` lines")
    return data


def validate(data: object, schema: str | Path, source: str) -> None:
    """Check `data` against a schema, a path or one of config, scale, experiment, suite.

    Raises UserError with one line about the first error: `source`, the key, what is wrong, and the fix. Unknown keys
    come first, because a misspelt key is also a missing one.
    """
    path = Path(schema) if str(schema).endswith(".yaml") else SCHEMAS / f"{schema}.schema.yaml"
    errors = sorted(_validator(path).iter_errors(data), key=lambda error: error.validator != "additionalProperties")
    if errors:
        raise UserError(" ".join(f"{source}: {_problem(errors[0])}".split()))


def load_config(root: Path, overrides: Mapping | None = None) -> dict:
    """config/config.yaml with `overrides` (what `--config` gave) in place of its keys, checked.

    `experiments` may be given as one string, with commas between several names: `--config experiments=table2`.
    """
    data = _load(root, "config/config.yaml", "config")
    given = dict(overrides or {})
    if isinstance(given.get("experiments"), str):
        given["experiments"] = [name.strip() for name in given["experiments"].split(",")]
    merged = {**data, **given}
    validate(merged, _schema(root, "config"), "--config")  # the file itself is right, so what is wrong was given
    return merged


def load_scale(root: Path, name: str) -> dict:
    """config/scales/<name>.yaml, checked against its schema."""
    return _load(root, f"config/scales/{name}.yaml", "scale")


def load_experiment(root: Path, name: str) -> dict:
    """config/experiments/<name>.yaml, checked against its schema."""
    return _load(root, f"config/experiments/{name}.yaml", "experiment")


def load_experiments(root: Path, config: Mapping) -> tuple[dict[str, dict], dict[str, str]]:
    """The experiments in config/experiments that fit the scale of `config`, and why the others do not.

    An experiment that `config` does not name may use words of another scale: it is an error only when asked for.

    Raises UserError for a file that is wrong by itself, and for an experiment that `config` names and that has no file
    or does not fit the scale.
    """
    for name in config["experiments"]:
        load_experiment(root, name)
    scale, models = load_scale(root, config["scale"]), load_models(root)
    suite = load_suite(root, scale["evaluation"]["suite"])
    fit, misfits = {}, {}
    for path in sorted((Path(root) / "config/experiments").glob("*.yaml")):
        experiment = load_experiment(root, path.stem)
        sources = f"config/experiments/{path.name}", f"config/scales/{config['scale']}.yaml"
        try:
            check(experiment, scale, models, suite, *sources)
            fit[path.stem] = experiment
        except UserError as error:
            if path.stem in config["experiments"]:
                raise
            misfits[path.stem] = str(error)
    return fit, misfits


def load_suite(root: Path, name: str) -> dict:
    """config/suites/<name>.yaml, checked against its schema; each task stands in it once."""
    source = f"config/suites/{name}.yaml"
    suite = _load(root, source, "suite")
    _once(f"{source}: tasks", [task["key"] for task in suite["tasks"]])
    return suite


def load_models(root: Path) -> dict[str, dict]:
    """Name -> `{"model_cfg": …, "preprocess_cfg": …}`, of every model in config/models/*.yaml."""
    models: dict[str, dict] = {}
    for path in sorted((Path(root) / "config/models").glob("*.yaml")):
        source = f"config/models/{path.name}"
        data = _load(root, source, "models")
        for name, model in data["models"].items():
            if name in models:
                raise UserError(f"{source}: models: {name!r} stands in another file of config/models too; rename one")
            models[name] = _model(data, name, model, source)
    return models


def check(experiment: Mapping, scale: Mapping, models: Mapping, suite: Mapping, source: str, scale_source: str) -> None:
    """What an experiment, a scale, the models and the suite must say together; each by itself is valid already.

    `source` and `scale_source` are what errors call the experiment and the scale. Raises UserError, one line, at the
    first word that nothing defines and the first contradiction.
    """
    _check_uses(scale_source, _uses_of_scale(scale, models, suite))
    if has_runs(experiment):
        columns, where = scale["evaluation"]["columns"], f"evaluation.columns of {scale_source}"
        known = [*columns, *NETWORK_COLUMNS]
        _check_uses(source, (("columns", column, known, where) for column in experiment["columns"]))
    check_experiment(experiment, models, source)
    _check_sizes(scale, scale_source)
    _once(f"{scale_source}: datasets", [dataset["name"] for dataset in scale["datasets"].values()])
    try:
        plan(experiment, scale, models)
    except UserError as error:
        raise UserError(f"{source} with {scale_source}: {error}") from None


def check_experiment(experiment: Mapping, models: Mapping, source: str) -> None:
    """The part of `check` that needs no scale: what the words of an experiment say of each other, and its networks.

    A network may be open_clip's, and asking open_clip takes seconds. So a name with `:` or `/`, which no model of
    open_clip has, must stand in config/models (but for `open_clip:`); others are left to the job that measures.
    """
    _check_uses(source, _uses_of_experiment(experiment, models))
    _once(f"{source}: rows", [row["name"] for row in experiment["rows"]])
    _check_columns(experiment, source)
    _check_rows(experiment, source)


_Use = tuple[str, str, Iterable[str], str]  # where a word is used, the word, the words that are defined, where they are


def _check_uses(source: str, uses: Iterable[_Use]) -> None:
    for path, word, known, where in uses:
        if word not in known:
            hint = f"{nearest(word, known)} (known: {_listed(known)})"
            raise UserError(f"{source}: {path}: {word!r} is not in {where}{hint}")


def _uses_of_scale(scale: Mapping, models: Mapping, suite: Mapping) -> Iterator[_Use]:
    pool, zoo, evaluation = scale["pool"], scale["zoo"], scale["evaluation"]
    for word, model in scale["models"].items():
        yield f"models.{word}", model, models, "config/models"
    for name, member in _members(zoo):
        yield f"zoo.{name}.model", member["model"], models, "config/models"
    for word, teachers in scale["teachers"].items():
        yield from ((f"teachers.{word}", teacher, zoo["teachers"], "zoo.teachers") for teacher in teachers)
    for finish, design in pool["finishes"].items():
        yield f"pool.finishes.{finish}", finish, pool["vendors"], "pool.vendors"
        yield f"pool.finishes.{finish}", design, pool["vendors"], "pool.vendors"
    for style in pool["required_styles"]:
        yield "pool.required_styles", style, pool["styles"], "pool.styles"
    tasks, where = [task["key"] for task in suite["tasks"]], f"config/suites/{evaluation['suite']}.yaml"
    for style in pool["styles"]:  # the task of a style ends in its name
        yield "pool.styles", style, [key.rpartition("/")[2] for key in tasks], where
    for column, keys in evaluation["columns"].items():
        yield from ((f"evaluation.columns.{column}", key, tasks, where) for key in keys)


def _uses_of_experiment(experiment: Mapping, models: Mapping) -> Iterator[_Use]:
    columns, rows = experiment["columns"], [row["name"] for row in experiment["rows"]]
    for column in evaluation_columns(experiment):
        if column.lower().startswith(("params", "latency")):  # else a misspelt one would count as an accuracy
            yield "columns", column, NETWORK_COLUMNS, "the network columns"
    for i, row in enumerate(experiment["rows"]):
        yield from ((f"rows[{i}].published", column, columns, "columns") for column in row.get("published", {}))
        network = row.get("network", "")
        if set(network) & set(":/") and not network.startswith("open_clip:"):
            yield f"rows[{i}].network", network, models, "config/models"
    for i, claim in enumerate(experiment.get("comparisons", [])):
        needed = "network" if claim["column"] in NETWORK_COLUMNS else "settings"
        measured = [row["name"] for row in experiment["rows"] if needed in row]
        yield from ((f"comparisons[{i}].{key}", claim[key], rows, "rows") for key in ("better", "than"))
        yield f"comparisons[{i}].column", claim["column"], columns, "columns"
        yield from (
            (f"comparisons[{i}].{key}", claim[key], measured, f"the rows with {needed}") for key in ("better", "than")
        )


def _check_columns(experiment: Mapping, source: str) -> None:
    """Every column has something to show, and what it needs."""
    rows = experiment["rows"]
    published = {column for row in rows for column, value in row.get("published", {}).items() if value is not None}
    for column in experiment["columns"]:
        needed = "network" if column in NETWORK_COLUMNS else "settings"
        if column not in published and not any(needed in row for row in rows):
            raise UserError(f"{source}: columns: {column!r} would be empty; give a row {needed} or a published value")
    latencies = [column for column, (quantity, _) in NETWORK_COLUMNS.items() if quantity == "latency"]
    if published & set(latencies) and "latency_device" not in experiment:
        raise UserError(f"{source}: latency_device is missing; say on what device the paper measured its latencies")
    if has_runs(experiment) and "seeds" not in experiment:
        raise UserError(f"{source}: seeds is missing; add it, because there are rows with settings")
    if has_runs(experiment) and not evaluation_columns(experiment):
        raise UserError(f"{source}: columns has no accuracy, but there are rows with settings; add one or remove those")


def _check_rows(experiment: Mapping, source: str) -> None:
    """Published percentages are at most 100, and a label does not take the name of another column of the table."""
    settings = {name for row in experiment["rows"] for name in row.get("settings", {})}
    taken = {"row", "network", "seeds", *settings, *experiment["columns"]}
    for i, row in enumerate(experiment["rows"]):
        for column, value in row.get("published", {}).items():
            if column not in NETWORK_COLUMNS and value is not None and value > 100:
                raise UserError(f"{source}: rows[{i}].published.{column} is {value}; it must be at most 100 percent")
        for label in row.get("labels", {}):
            if label in taken:
                raise UserError(f"{source}: rows[{i}].labels.{label}: the table has such a column; rename the label")


def _check_sizes(scale: Mapping, source: str) -> None:
    """Numbers that must fit each other, and icon sets that must not be trained and unseen at once."""
    pool, training = scale["pool"], scale["training"]
    vendors = len({pool["finishes"].get(vendor, vendor) for vendor in pool["vendors"]})
    held_out = pool["held_out_vendors"]
    if not held_out < pool["min_vendors"] <= vendors:
        raise UserError(
            f"{source}: pool.min_vendors is {pool['min_vendors']}; it must be more than held_out_vendors ({held_out}) "
            f"and at most the number of vendors ({vendors})"
        )
    for style, icons in pool["styles"].items():
        if icons in pool["vendors"]:
            raise UserError(
                f"{source}: pool.styles.{style} is {icons!r}, a training vendor; take it out of one of them"
            )
    if training["warmup"] > training["steps"]:
        raise UserError(
            f"{source}: training.warmup is {training['warmup']}; it must be at most steps ({training['steps']})"
        )
    crops = [(f"augmentations.{name}", entry) for name, entry in scale["augmentations"].items()]
    members = [(f"zoo.{name}", member) for name, member in _members(scale["zoo"])]
    zoo = [
        (f"{path}.augmentation", entry["augmentation"])
        for path, entry in [("zoo", scale["zoo"]), *members]
        if "augmentation" in entry
    ]
    for path, entry in [*crops, *zoo]:
        low, high = entry["crop_scale"]
        if low > high:
            raise UserError(f"{source}: {path}.crop_scale is [{low}, {high}]; write the smaller number first")


def _members(zoo: Mapping) -> list[tuple[str, Mapping]]:
    return [(f"teachers.{name}", member) for name, member in zoo["teachers"].items()] + [
        ("captioner", zoo["captioner"])
    ]


def _once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{what}: the name {name!r} stands twice; rename one")


@cache
def _validator(schema: Path) -> jsonschema.protocols.Validator:
    return _Validator(load_yaml(schema))


def _schema(root: Path, kind: str) -> Path:
    return Path(root) / "workflow/schemas" / f"{kind}.schema.yaml"


def _load(root: Path, source: str, kind: str) -> dict:
    data = load_yaml(Path(root) / source, source)
    validate(data, _schema(root, kind), source)
    return data


def _model(data: Mapping, name: str, model: Mapping, source: str) -> dict:
    """open_clip's configuration of one model: its two towers put together."""
    for tower in ("image", "text"):
        if model[tower] not in data[tower]:
            hint = f"{nearest(model[tower], data[tower])} (known: {_listed(data[tower])})"
            raise UserError(f"{source}: models.{name}.{tower}: {model[tower]!r} is not in {tower}{hint}")
    model_cfg = {
        "embed_dim": model["embed_dim"],
        "vision_cfg": dict(data["image"][model["image"]]),
        "text_cfg": {**data.get("text_cfg", {}), **data["text"][model["text"]]},
        **({"multimodal_cfg": dict(model["multimodal_cfg"])} if "multimodal_cfg" in model else {}),
        "custom_text": True,
    }
    return {"model_cfg": model_cfg, "preprocess_cfg": dict(data["preprocess_cfg"])}


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(file.stem for file in path.parent.glob(f"*{path.suffix}"))
        hint = nearest(path.stem, known).replace("'", "")
        raise UserError(f"{source} does not exist{hint} (known: {_listed(known)})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read as UTF-8 text ({error}); repair or replace the file") from None


def _yaml_problem(error: yaml.YAMLError, source: str) -> str:
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{source} line {error.problem_mark.line + 1}: {error.problem}"
    mark = getattr(error, "problem_mark", None)
    line = f" line {mark.line + 1}" if mark else ""
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unknown problem"
    return f"{source}{line}: this is not YAML ({what}); look at the indentation, quotes and brackets there"


def _problem(error: jsonschema.ValidationError) -> str:
    """One line about one schema error: dotted key, what is wrong, the fix."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)[1:]
    value, limit = error.instance, error.validator_value
    key = path or "the file"
    match error.validator:
        case "additionalProperties":
            return _unknown_key(error, f"{path}." if path else "")
        case "required":
            missing = next(name for name in limit if name not in value)
            return f"{path}{'.' if path else ''}{missing} is missing; add it"
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            return f"{key} is {_kind(value)}; it must be {' or '.join(_TYPES[kind] for kind in kinds)}"
        case "enum":
            return f"{key} is {value!r}{nearest(value, limit)} (it must be one of {_listed(limit)})"
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return f"{key} is {value}; it must be {_LIMITS[error.validator]} {limit}"
        case "minItems" | "maxItems" | "minProperties" | "minLength":
            return f"{key} has length {len(value)}; it must be {_LIMITS[error.validator]} {limit}"
        case "uniqueItems":
            return f"{key} has an entry twice; keep one"
        case "pattern":
            return f"{key} is {value!r}; only letters, digits, '.', '_' and '-' may stand in it"
    return f"{key}: {' '.join(error.message.split())}"


_TYPES = {
    "object": "keys with values",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}
_LIMITS = {
    **dict.fromkeys(["minimum", "minItems", "minProperties", "minLength"], "at least"),
    **dict.fromkeys(["maximum", "maxItems"], "at most"),
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def _unknown_key(error: jsonschema.ValidationError, prefix: str) -> str:
    keys, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties", {})
    key = next(k for k in error.instance if k not in keys and not any(re.search(p, k) for p in patterns))
    if patterns:
        return f"{prefix}{key} is no name; only letters, digits, '.', '_' and '-' may stand in it"
    absent = [name for name in keys if name not in error.instance]  # a key that is there already was not meant
    return f"{prefix}{key} is not a key{nearest(key, absent) or nearest(key, keys)} (known: {_listed(keys)})"


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "keys with values" if isinstance(value, dict) else "a list"
    return f"the text {value!r}" if isinstance(value, str) else str(value)


def _listed(names: Iterable) -> str:
    return ", ".join(map(str, names)) or "none"
