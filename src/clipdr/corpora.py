"""Texts that do not belong to the images, as artifacts: sentences, their embeddings, and what is chosen. No files."""

from collections.abc import Mapping

from clipdr import chain
from clipdr.artifacts import Artifact, artifact
from clipdr.errors import UserError, look_up

BY_IMAGES = ("constructed", "nearest")  # methods that look at images
SIZED = ("nearest", "random")  # methods that are told how many texts to take
OF_POOL = ("captions", "prompts")  # kinds of sentences that come with the pool


def corpus(scale: Mapping, models: Mapping, word: str, dataset: Mapping, teachers: list[str]) -> Artifact:
    """The texts that stand for a word, chosen for the images of a dataset, with embeddings of each teacher.

    `dataset` is an entry of the scale's `datasets`, `teachers` are names of the zoo. Raises UserError for a word that
    the scale does not define, and for a size that is missing, or not read.
    """
    entry = dict(look_up("data.texts", word, scale.get("texts", {}), "texts"))
    names, like = entry.pop("from"), entry.pop("like", None)
    if ((like is not None) + ("size" in entry)) != (entry["method"] in SIZED):
        need = "needs size, or like, a corpus of whose size it is" if entry["method"] in SIZED else "takes no size"
        raise UserError(f"texts.{word}: method {entry['method']} {need}; correct it")
    found = [sentences(scale, name) for name in names]
    zoo = {name: chain.member(name, scale, models) for name in teachers}
    inputs = {
        "sentences": found,
        "texts": [embedded(one, name, teacher) for name, teacher in zoo.items() for one in found],
    }
    if entry["method"] in BY_IMAGES:
        first = teachers[0]
        images = {"subset": chain.subset(scale, dataset), "pool": chain.pool(scale)}
        inputs["images"] = artifact(
            "embedded", f"{dataset['name']}-{first}", {"teacher": first}, model=zoo[first], **images
        )
    if like is not None:
        if scale["texts"].get(like, {}).get("method") in SIZED:
            raise UserError(f"texts.{word}: like: the size of {like} is given or another one's; name that one")
        inputs["like"] = corpus(scale, models, like, dataset, teachers)
    return artifact("corpora", word, {**entry, "teachers": teachers}, **inputs)


def sentences(scale: Mapping, name: str) -> Artifact:
    """Sentences to choose from."""
    entry = dict(look_up("texts: from", name, scale.get("sentences", {}), "sentences"))
    entry.pop("about", None)
    inputs = {"pool": chain.pool(scale)} if entry["kind"] in OF_POOL else {}
    return artifact("sentences", name, entry, **inputs)


def embedded(made: Artifact, name: str, teacher: Artifact) -> Artifact:
    """The embeddings that a teacher gives sentences."""
    slug = f"{made.name.rpartition('-')[0]}-{name}"
    return artifact("embedded", slug, {"teacher": name}, sentences=made, model=teacher)
