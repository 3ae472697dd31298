"""Stage `train`: one student from a reinforced dataset and resolved settings."""

from clipdr.losses import module_name

ONLINE, UNPAIRED, TEXT_TOWER = "clipdr.train.online", "clipdr.data.unpaired", "clipdr.train.text_tower"
START = "clipdr.train.start"
WATCHED, KINDS = "clipdr.train.watched", "clipdr.evaluate.kinds"


def named_modules(settings: dict) -> list[str]:
    """Modules that a run imports by name, because its settings ask for them: no other run depends on their code."""
    asked = [ONLINE] if "online" in settings else []
    asked += [START] if "init" in settings else []
    asked += [UNPAIRED] if "texts" in settings["data"] else []
    asked += [TEXT_TOWER] if "text_tower" in settings else []
    if "watched" in settings:  # named here, because training does not depend on the package of evaluation
        asked += [WATCHED, *sorted({f"{KINDS}.{task['kind']}" for task in settings["watched"]["tasks"]})]
    return [module_name(settings["objective"]["name"]), *asked]
