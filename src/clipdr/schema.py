"""Reading YAML files and checking them against workflow/schemas.

YAML is 1.2, as ruamel.yaml reads it: `1e-3` is a number, `no` a text, and a key that stands twice an error. Decided
here: a key that is no text, .nan and .inf are refused, and 300.0 is no integer. A UserError is one line that names the
file, the key and the fix.
"""

import copy
import math
import re
from functools import cache
from pathlib import Path

import jsonschema
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from clipdr.errors import UserError, listed, nearest

REPOSITORY = Path(__file__).resolve().parents[2]

_YAML = YAML(typ="safe", pure=True)  # once, because it looks for plug-ins on the disk
# YAML and JSON Schema take 300.0 for an integer, Python's slices and ranges do not.
_INTEGER = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)


def _properties(validator, properties, instance, schema):
    """As jsonschema's own, whose error of a key that is `false` does not say which key it is."""
    rules = {key: {"not": {}} if rule is False else rule for key, rule in properties.items()}
    yield from jsonschema.Draft202012Validator.VALIDATORS["properties"](validator, rules, instance, schema)


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"properties": _properties}, type_checker=_INTEGER
)


def load_yaml(path: Path | str, source: str | None = None) -> dict:
    """The mapping in a YAML file. Errors call the file `source`, or else by its path.

    Raises UserError if the file is missing (with the nearest name beside it), is no YAML, has a key twice, a key that
    is no text or a number that is not finite, or holds anything but a mapping.
    """
    path = Path(path)
    source = source or str(path)
    try:
        data = copy.deepcopy(_parsed(_read(path, source)))
    except YAMLError as error:
        raise UserError(_yaml_problem(error, source)) from None
    except ValueError as error:  # of a date or a tagged number that is none
        raise UserError(f"{source}: this is not YAML ({error}); put such a text in quotes") from None
    if not isinstance(data, dict):
        raise UserError(f"{source}: holds {_kind(data)}, not keys with values; write `key: value` lines")
    _check_plain(data, source, "")
    return data


@cache  # by the text: schemas, models and scales are asked for again and again
def _parsed(text: str) -> object:
    return _YAML.load(text)


def _check_plain(value: object, source: str, path: str) -> None:
    """Keys are texts, numbers are finite, and nothing is a date: all that JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{source}: {path} is {value}, no finite number; write one")
    if not isinstance(value, dict | list | str | int | float | None):
        raise UserError(f"{source}: {path} is a {type(value).__name__}, which JSON does not have; put it in quotes")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{source}: {path}{'.' if path else ''}{key}: the key is no text; put it in quotes")
            _check_plain(inner, source, f"{path}{'.' if path else ''}{key}")
    if isinstance(value, list):
        for i, inner in enumerate(value):
            _check_plain(inner, source, f"{path}[{i}]")


def validate(data: object, kind: str, source: str, root: Path = REPOSITORY) -> None:
    """Check `data` against workflow/schemas/<kind>.schema.yaml.

    Raises UserError with one line about the first error: `source`, the key, what is wrong, and the fix. Unknown keys
    come first, because a misspelt key is also a missing one.
    """
    _check(data, _validator(Path(root) / "workflow/schemas" / f"{kind}.schema.yaml"), source)


def validate_by(data: object, schema: dict, source: str) -> None:
    """As `validate`, against a JSON schema that stands in no file."""
    _check(data, _Validator(schema), source)


def _check(data: object, validator: jsonschema.protocols.Validator, source: str) -> None:
    errors = sorted(validator.iter_errors(data), key=lambda error: error.validator != "additionalProperties")
    if errors:
        raise UserError(" ".join(f"{source}: {_problem(errors[0])}".split()))


def defaults(kind: str, root: Path = REPOSITORY) -> dict:
    """Key -> default, of the keys of workflow/schemas/<kind>.schema.yaml that have one."""
    keys = load_yaml(Path(root) / "workflow/schemas" / f"{kind}.schema.yaml")["properties"]
    return {key: entry["default"] for key, entry in keys.items() if "default" in entry}


def load(root: Path, source: str, kind: str) -> dict:
    """The file `source` below the repository `root`, checked against the schema of its kind."""
    data = load_yaml(Path(root) / source, source)
    validate(data, kind, source, root)
    return data


def kinds(root: Path, folder: str) -> dict[str, Path]:
    """Name -> schema of what may be chosen by its name: workflow/schemas/{objectives,pools,zoos}/<name>.schema.yaml."""
    files = sorted((Path(root) / "workflow/schemas" / folder).glob("*.schema.yaml"))
    return {path.name.removesuffix(".schema.yaml"): path for path in files}


@cache
def _validator(schema: Path) -> jsonschema.protocols.Validator:
    return _Validator(load_yaml(schema))


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(file.stem for file in path.parent.glob(f"*{path.suffix}"))
        hint = nearest(path.stem, known).replace("'", "")
        raise UserError(f"{source} does not exist{hint} (known: {listed(known)})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read as UTF-8 text ({error}); repair or replace the file") from None


def _yaml_problem(error: YAMLError, source: str) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    where = f"{source} line {mark.line + 1}" if mark else source
    what = getattr(error, "problem", None) or " ".join(str(error).split()) or "unknown problem"
    if isinstance(error, DuplicateKeyError):
        return f"{where}: the key {what.split(chr(34))[1]!r} stands twice; keep one"
    return f"{where}: this is not YAML ({what}); look at the indentation, quotes and brackets there"


def _problem(error: jsonschema.ValidationError) -> str:
    """One line about one schema error: dotted key, what is wrong, the fix."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)[1:]
    value, limit = error.instance, error.validator_value
    key = path or "the file"
    match error.validator:
        case "not":  # a key that is `false`
            return f"{key} is not read beside what else stands there; take it out"
        case "additionalProperties":
            return _unknown_key(error, f"{path}." if path else "")
        case "required":
            missing = next(name for name in limit if name not in value)
            return f"{path}{'.' if path else ''}{missing} is missing; add it"
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            return f"{key} is {_kind(value)}; it must be {' or '.join(_TYPES[kind] for kind in kinds)}"
        case "enum":
            return f"{key} is {value!r}{nearest(value, limit)} (it must be one of {listed(limit)})"
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
    return f"{prefix}{key} is not a key{nearest(key, absent) or nearest(key, keys)} (known: {listed(keys)})"


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "keys with values" if isinstance(value, dict) else "a list"
    return f"the text {value!r}" if isinstance(value, str) else str(value)
