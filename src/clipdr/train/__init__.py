"""Stage `train`: one student from a reinforced dataset and resolved settings."""

from clipdr.losses import module_name

ONLINE = "clipdr.train.online"


def named_modules(settings: dict) -> list[str]:
    """Modules that a run imports by name, because its settings ask for them: no other run depends on their code."""
    return [module_name(settings["objective"]["name"]), *([ONLINE] if "online" in settings else [])]
