"""The losses of DIME-FM against sums by hand, and what must not matter; its student, and its stream of texts."""

import json
import math

import numpy as np
import pytest
import torch
from refusals import refused
from torch.nn.functional import normalize

from clipdr.batch import Batch, Embeddings, Teacher
from clipdr.data.unpaired import KIND, UnpairedTexts
from clipdr.errors import UserError
from clipdr.losses import dime_fm
from clipdr.schema import defaults, validate
from clipdr.train.parallel import World

B, D, E = 6, 5, 7
ALL = slice(0, B)
SETTINGS = {"name": "dime-fm", "teachers": ["t"], **defaults("objectives/dime-fm")}


def emb(seed: int, width: int = D) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(B, width, generator=random, dtype=torch.float64), dim=1)


def seen(rows: slice = ALL, student: torch.Tensor | None = None, texts=ALL, **teachers: int) -> Embeddings:
    """A student's images, and of each teacher, by width, images and texts of its own."""
    found = {
        name: Teacher({"image": emb(3 + n, width)}, {"unpaired": emb(13 + n, width)[texts]}, 20.0)
        for n, (name, width) in enumerate((teachers or {"t": D}).items())
    }
    return Embeddings({"image": emb(0) if student is None else student}, {}, torch.tensor(9.0), found, rows)


def objective(widths: dict[str, int] | None = None, **settings) -> dime_fm.Objective:
    torch.manual_seed(0)
    widths = widths or {"t": D}
    return dime_fm.Objective({**SETTINGS, "teachers": list(widths), **settings}, D, widths).double()


def parts(embeddings: Embeddings, **settings) -> dict[str, float]:
    return {name: part.item() for name, part in objective(**settings)(embeddings).items()}


def kl(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """Mean over rows of KL(softmax(theirs) || softmax(ours)), number by number."""
    total = 0.0
    for a, b in zip(theirs.tolist(), ours.tolist(), strict=True):
        p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (a, b))
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    return total / len(theirs)


def test_parts_are_sums_by_hand():
    ours, one = emb(0), seen()
    theirs, texts = one.teachers["t"].images["image"], one.teachers["t"].texts["unpaired"]
    scores = {"vl": (theirs @ texts.T, ours @ texts.T), "pvl": (theirs @ theirs.T, ours @ theirs.T)}
    scores["udist"] = (theirs @ theirs.T, ours @ ours.T)
    expected = {"vl": kl(100 * scores["vl"][0], 100 * scores["vl"][1])}
    expected["vl"] += kl(100 * scores["vl"][0].T, 100 * scores["vl"][1].T)
    expected |= {part: 2 * kl(*(100 / t * s for s in scores[part])) for part, t in (("pvl", 3), ("udist", 7))}
    found = parts(one, vl=0.7, pvl=0.3, udist=0.1)
    assert found == pytest.approx(
        {"vl/unpaired/t": 0.7 * expected["vl"], "pvl/t": 0.3 * expected["pvl"], "udist/t": 0.1 * expected["udist"]}
    )
    assert parts(one).keys() == {"vl/unpaired/t", "pvl/t"}, "the published code leaves udist out"


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    same = seen(student=seen().teachers["t"].images["image"])
    assert parts(same, udist=1.0) == pytest.approx(dict.fromkeys(("vl/unpaired/t", "pvl/t", "udist/t"), 0.0), abs=1e-12)
    assert all(value > 0 for value in parts(seen(), udist=1.0).values())


def test_the_order_of_texts_does_not_matter():
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert parts(seen(texts=order), udist=1.0) == pytest.approx(parts(seen(), udist=1.0))


def test_shares_of_processes_have_the_mean_of_the_whole():
    shares = [parts(seen(slice(start, start + 2)), udist=0.5) for start in (0, 2, 4)]
    mean = {name: np.mean([share[name] for share in shares]) for name in shares[0]}
    assert mean == pytest.approx(parts(seen(), udist=0.5))


def test_without_the_diagonal_images_are_held_against_others_alone():
    theirs, ours = seen().teachers["t"].images["image"], emb(0)
    rows = [[j for j in range(B) if j != i] for i in range(B)]
    a, b = (torch.stack([s[i, row] for i, row in enumerate(rows)]) for s in (theirs @ theirs.T, ours @ theirs.T))
    found = parts(seen(), vl=0.0, pvl=1.0, mask_diagonal=True)
    assert found == pytest.approx({"pvl/t": 2 * kl(100 / 3 * a, 100 / 3 * b)})
    half = parts(seen(slice(2, 4)), vl=0.0, pvl=1.0, mask_diagonal=True)["pvl/t"]
    assert half == pytest.approx(2 * kl(100 / 3 * a[2:4], 100 / 3 * b[2:4]))


def test_a_second_teacher_is_seen_through_a_layer():
    made, both = objective({"t": D, "u": E}, udist=1.0), seen(t=D, u=E)
    found = {name: part.item() for name, part in made(both).items()}
    alone = parts(seen(t=D), udist=1.0)
    assert {name: found[name] for name in alone} == pytest.approx({name: value / 2 for name, value in alone.items()})
    assert set(found) - set(alone) == {"vl/unpaired/u", "pvl/u", "udist/u"} and list(made.heads) == ["u"]
    through = normalize(made.heads["u"](emb(0)), dim=1)
    u = both.teachers["u"]
    swapped = Embeddings({"image": through}, {}, both.scale, {"t": u}, ALL)
    expected = parts(swapped, widths={"t": E}, udist=1.0)
    assert found["vl/unpaired/u"] == pytest.approx(expected["vl/unpaired/t"] / 2)
    assert found["udist/u"] == pytest.approx(expected["udist/t"] / 2)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"vl": -1}, "vl is -1; it must be at least 0"),
        ({"pvl_temperature": 0}, "pvl_temperature is 0; it must be more than 0"),
        ({"loss": 1}, "loss is not a key"),
    ],
)
def test_settings_that_are_refused(settings, says):
    told = {"name": "dime-fm", "teachers": "L/14", **settings}
    assert says in refused(validate, told, "objectives/dime-fm", "x")


class Source:
    """Batches of images alone."""

    widths = {"t": D}

    def batches(self, start: int):
        while True:
            uids = [f"image {start}"] * 4
            yield Batch(uids, {"image": torch.zeros(4, 3, 2, 2)}, {}, {"t": Teacher({"image": emb(0)[:4]}, {}, 1.0)})
            start += 1


@pytest.fixture
def corpus(tmp_path):
    vectors = normalize(torch.arange(1.0, 10 * D + 1).reshape(10, D).sin(), dim=1).numpy()
    np.save(tmp_path / "t.npy", vectors.astype(np.float16))
    (tmp_path / "manifest.json").write_text(json.dumps({"texts": 10}))
    return tmp_path


def texts(corpus, start: int, steps: int, rank: int = 0, world: int = 1, seed: int = 0) -> list[torch.Tensor]:
    source = UnpairedTexts(Source(), corpus, ["t"], 4, seed, World(rank, world, torch.device("cpu")))
    batches = source.batches(start)
    return [next(batches).teachers["t"].texts[KIND] for _ in range(steps)]


def test_texts_come_in_epochs_of_their_own_and_can_be_resumed(corpus):
    whole = texts(corpus, 0, 10)
    vectors = torch.from_numpy(np.load(corpus / "t.npy")).float()
    order = [int((vectors == row).all(dim=1).nonzero()) for batch in whole for row in batch]
    for epoch in range(4):
        assert sorted(order[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert order[:10] != order[10:20]
    torch.testing.assert_close(texts(corpus, 7, 3), whole[7:], rtol=0, atol=0)
    halves = [torch.cat([a, b]) for a, b in zip(texts(corpus, 0, 5, 0, 2), texts(corpus, 0, 5, 1, 2), strict=True)]
    torch.testing.assert_close(halves, whole[:5], rtol=0, atol=0)
    assert not torch.equal(texts(corpus, 0, 1, seed=1)[0], whole[0])


def test_corpora_that_are_refused(corpus):
    world = World(0, 1, torch.device("cpu"))
    with pytest.raises(UserError, match="has 10 texts, fewer than a batch of 11"):
        UnpairedTexts(Source(), corpus, ["t"], 11, 0, world)
    with pytest.raises(UserError, match="--corpus names no folder"):
        UnpairedTexts(Source(), None, ["t"], 4, 0, world)
    vectors = np.load(corpus / "t.npy")
    vectors[3] = np.nan
    np.save(corpus / "t.npy", vectors)
    with pytest.raises(UserError, match="text 3 of .*: embeddings of teacher 't' are not L2-normalised"):
        texts(corpus, 0, 3)
    np.save(corpus / "t.npy", vectors[:, :3])
    with pytest.raises(UserError, match="has 10 texts of width 3, but the corpus says 10, and its images have 5"):
        texts(corpus, 0, 1)
    (corpus / "t.npy").unlink()
    with pytest.raises(UserError, match="has no embeddings of teacher 't'"):
        texts(corpus, 0, 1)
