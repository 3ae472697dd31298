"""A store that is sound is said to be, and whatever is wrong with one is found, named, and shown by the exit status."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipdr.data.samples import decode, encode
from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.reinforce.verify import verify


@pytest.fixture
def store(reinforced: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reinforced, tmp_path / "store")


def rewritten(store: Path, change) -> None:
    """The first shard with its list of samples changed."""
    write_shard(store / "00000.tar", change(list(read_shard(store / "00000.tar"))))


def with_embeddings(sample: dict, change) -> dict:
    """A sample with both kinds of embeddings passed through `change`."""
    found = decode(sample)
    return encode(sample, found.synthetic, found.augmentations, change(found.img_AE.clone()), change(found.txt_TE))


def test_a_sound_store_has_no_faults(store: Path, teachers: list[Path]) -> None:
    assert verify(store, [], 0.0) == []
    assert verify(store, teachers, 1.0) == []


def scaled(samples: list[dict]) -> list[dict]:
    return [with_embeddings(samples[0], lambda emb: 1.02 * emb), *samples[1:]]


def infinite(samples: list[dict]) -> list[dict]:
    def last(emb: torch.Tensor) -> torch.Tensor:
        return torch.cat([emb[:, :-1], torch.full((len(emb), 1), torch.inf)], dim=1)

    return [*samples[:2], with_embeddings(samples[2], last)]


def short(samples: list[dict]) -> list[dict]:
    return [with_embeddings(samples[0], lambda emb: emb[:-1]), *samples[1:]]


def other_image(samples: list[dict]) -> list[dict]:
    return [{**samples[0], "webp": samples[1]["webp"]}, *samples[1:]]


FAULTS = {
    scaled: "embeddings of teacher 'small' are not L2-normalised",
    infinite: "embeddings of teacher 'large' are not L2-normalised",
    short: r"image embeddings \[2, 40\], not \[3, 40\]",
    other_image: "the image is not the one whose sha256 was stored",
}


@pytest.mark.parametrize("change", FAULTS)
def test_a_damaged_sample_is_one_line(store: Path, change) -> None:
    rewritten(store, change)
    (fault,) = verify(store, [], 0.0)
    assert fault.startswith("00000.tar: ") and re.search(FAULTS[change], fault)


def test_samples_that_are_lost_or_stand_twice(store: Path) -> None:
    rewritten(store, lambda samples: samples[1:])
    assert verify(store, [], 0.0) == [
        "00000.tar: holds 2 samples, the manifest says 3",
        "the manifest has 6 samples, the shards 5",
    ]
    other = list(read_shard(store / "00001.tar"))
    rewritten(store, lambda samples: [*samples, other[0]])
    assert verify(store, [], 0.0) == ["1 samples stand twice"]


def test_a_shard_that_is_cut_missing_or_too_many(store: Path) -> None:
    shutil.copy(store / "00000.tar", store / "00007.tar")
    assert verify(store, [], 0.0) == ["shards that the manifest does not name: 00007.tar"]
    (store / "00007.tar").unlink()
    data = (store / "00000.tar").read_bytes()
    (store / "00000.tar").write_bytes(data[: len(data) // 2])
    cut, number, total = verify(store, [], 0.0)
    assert "00000.tar cannot be read" in cut and "00000.tar: holds" in number and "the shards" in total
    (store / "00000.tar").unlink()
    assert "00000.tar is missing" in verify(store, [], 0.0)[0]


def test_embeddings_of_other_weights_are_noticed(store: Path, teachers: list[Path]) -> None:
    swapped = [with_embeddings(s, lambda emb: emb.roll(1, 0)) for s in read_shard(store / "00000.tar")]
    write_shard(store / "00000.tar", swapped)
    assert verify(store, [], 0.0) == []
    faults = verify(store, teachers, 1.0)
    assert len(faults) == 3 * 4 and all("gives other embeddings of its" in fault for fault in faults)


def test_the_share_is_a_share(store: Path, teachers: list[Path], monkeypatch) -> None:
    from clipdr.reinforce import verify as module

    compared = []
    monkeypatch.setattr(module, "_compare", lambda sample, *_: compared.append(sample.uid) or iter(()))
    verify(store, teachers, 0.0)
    assert compared == []
    for seed in range(20):
        verify(store, teachers, 0.5, seed)
    assert 40 < len(compared) < 80  # of 120


@pytest.mark.slow
def test_the_command_says_and_shows_it(store: Path) -> None:
    def run() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "clipdr.reinforce", "verify", str(store)]
        return subprocess.run(command, capture_output=True, text=True)

    sound = run()
    assert (sound.returncode, sound.stdout) == (0, f"{store}: sound\n")
    rewritten(store, lambda samples: samples[1:])
    spoiled = run()
    assert spoiled.returncode == 1 and spoiled.stdout.endswith(f"{store}: 2 faults\n")


def test_teachers_must_be_those_of_the_manifest(store: Path, teachers: list[Path]) -> None:
    with pytest.raises(UserError, match="names 2 teachers \\(small, large\\); give their folders"):
        verify(store, teachers[:1], 1.0)
