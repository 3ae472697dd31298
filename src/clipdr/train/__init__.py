"""Stage `train`: one student from a reinforced dataset and resolved settings."""

from clipdr.evaluate.kinds import modules_of
from clipdr.losses import module_name

ONLINE, WATCHED = "clipdr.train.online", "clipdr.train.watched"


def named_modules(settings: dict) -> list[str]:
    """Modules that a run imports by name, because its settings ask for them: no other run depends on their code."""
    asked = [ONLINE] if "online" in settings else []
    asked += [WATCHED, *modules_of(settings["watched"]["tasks"])] if "watched" in settings else []
    return [module_name(settings["objective"]["name"]), *asked]
