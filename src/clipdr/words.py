"""What the words of an experiment say by themselves, before a scale gives them a meaning.

Beside the columns that a scale defines, a table may have network columns: parameters and latency, measured on the
full-size network that a row names and the same at every scale; columns of work, counted on the row's own model; or,
alone, the column of what an epoch costs or that of what a dataset takes.
"""

from collections.abc import Mapping

COST = "Hours per epoch"  # the column of tables whose runs are timed
SIZE = "Size (TB)"  # the column of tables of what datasets take
# Columns of what is counted of a row's own model and run, multiply-accumulates.
PER_PAIR, TRAINING = "GMACs", "training GMACs"
WORK_COLUMNS = (PER_PAIR, TRAINING)
MAIN = "main_metric"
SCORED = ("settings", "zoo", "weights")  # keys of a row of which one says what is scored
# Network column -> what is measured, and of which tower.
NETWORK_COLUMNS = {
    "Params img (M)": ("params", "image"),
    "Params txt (M)": ("params", "text"),
    "Latency img (ms)": ("latency", "image"),
    "Latency txt (ms)": ("latency", "text"),
}


def words_of(experiment: Mapping, row: Mapping) -> dict:
    """All settings of a row, still in words: those common to all rows, with the row's own in their place."""
    common, own = experiment.get("settings", {}), row["settings"]
    if own.get("objective", {}).get("name", None) not in (None, common.get("objective", {}).get("name")):
        common = {key: value for key, value in common.items() if key != "objective"}  # another one has other keys
    return merge(common, own)


def merge(base: Mapping, changes: Mapping) -> dict:
    """`base` with `changes` in its place, key by key also where both hold keys."""
    both = {key: merge(base[key], value) for key, value in changes.items() if _mappings(base.get(key), value)}
    return {**base, **changes, **both}


def columns_of(settings: Mapping) -> dict:
    """Settings of a row as columns of a table: name -> word. What holds keys lies open."""
    flat = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    for key, value in settings.get("init", {}).items():
        flat["init" if key in ("row", "checkpoint") else key] = value
    for part in ("objective", "data", "mixture", "training"):
        flat |= {part if key == "name" else key: value for key, value in settings.get(part, {}).items()}
    return flat


def has_runs(experiment: Mapping) -> bool:
    """Whether any row is trained."""
    return any("settings" in row for row in experiment["rows"])


def has_scores(experiment: Mapping) -> bool:
    """Whether any row is scored; if none is, the table needs no scale, and has no figure of its own."""
    return any(set(SCORED) & row.keys() for row in experiment["rows"])


def evaluation_columns(experiment: Mapping) -> list[str]:
    """The columns that a scale defines: all but the network columns and those of work, costs and sizes."""
    others = (*NETWORK_COLUMNS, *WORK_COLUMNS, COST, SIZE)
    return [column for column in experiment["columns"] if column not in others]


def asks_for_work(experiment: Mapping) -> bool:
    """Whether the table or the curve of an experiment shows what its runs have to compute."""
    return bool(set(WORK_COLUMNS) & {*experiment["columns"], experiment.get("curve", {}).get("quantity")})


def published_of(experiment: Mapping) -> dict[str, Mapping]:
    """Row -> column -> published value."""
    return {row["name"]: row.get("published") or {} for row in experiment["rows"]}


def task_and_metric(word: str) -> tuple[str, str]:
    """What a column of a scale averages: `<task>`, of which it is the main metric, or `<task>:<metric>`."""
    key, _, metric = word.partition(":")
    return key, metric or MAIN


def networks(experiment: Mapping, quantity: str) -> list[str]:
    """Networks whose `quantity`, params or latency, the table of an experiment reads, in order of first use."""
    columns = [column for column in experiment["columns"] if column in NETWORK_COLUMNS]
    if not any(NETWORK_COLUMNS[column][0] == quantity for column in columns):
        return []
    return list(dict.fromkeys(row["network"] for row in experiment["rows"] if "network" in row))


def slug(network: str) -> str:
    """The name of a network as a file name: `ViT-B/16:MCt-2` -> `ViT-B-16+MCt-2`."""
    return network.replace("/", "-").replace(":", "+")


def _mappings(*values: object) -> bool:
    return all(isinstance(value, Mapping) for value in values)
