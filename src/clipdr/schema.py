"""Reading YAML files and checking them against workflow/schemas.

Decided here: a file that can be misread is refused (a key that stands twice, a key that is no text, .nan and .inf);
`1e-3` is a number, as people expect and YAML 1.1 does not; 300.0 is no integer. A UserError is one line that names the
file, the key and the fix.
"""

import math
import re
from functools import cache
from pathlib import Path

import jsonschema
import yaml

from clipdr.errors import UserError, listed, nearest

REPOSITORY = Path(__file__).resolve().parents[2]

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


def validate(data: object, kind: str, source: str, root: Path = REPOSITORY) -> None:
    """Check `data` against the schema of `kind`: config, scale, experiment, suite or models.

    Raises UserError with one line about the first error: `source`, the key, what is wrong, and the fix. Unknown keys
    come first, because a misspelt key is also a missing one.
    """
    schema = Path(root) / "workflow/schemas" / f"{kind}.schema.yaml"
    errors = sorted(_validator(schema).iter_errors(data), key=lambda error: error.validator != "additionalProperties")
    if errors:
        raise UserError(" ".join(f"{source}: {_problem(errors[0])}".split()))


def load(root: Path, source: str, kind: str) -> dict:
    """The file `source` below the repository `root`, checked against the schema of its kind."""
    data = load_yaml(Path(root) / source, source)
    validate(data, kind, source, root)
    return data


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
