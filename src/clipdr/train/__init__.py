"""Stage `train`: one student from a reinforced dataset and resolved settings."""

from clipdr.losses import module_name

ONLINE = "clipdr.train.online"


def modules(settings: dict) -> list[str]:
    """Modules whose code decides a run. All but the first are imported by name, by runs that need them."""
    return ["clipdr.train.run", module_name(settings["objective"]["name"]), *([ONLINE] if "online" in settings else [])]
