"""Files appear whole or not at all; a killed process leaves its work to the next one of the same settings."""

import hashlib

import pytest

from clipdr.errors import UserError
from clipdr.files import atomic_dir, atomic_file, resumable_dir, sha256, sha256_file


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_atomic_file_leaves_what_was_there(tmp_path, error, before):
    target = tmp_path / "a" / "file.txt"
    if before:
        target.parent.mkdir()
        target.write_text(before)
    with pytest.raises(error), atomic_file(target) as path:
        path.write_text("half")
        assert not target.exists() or target.read_text() == before
        raise error
    assert [p.read_text() for p in target.parent.iterdir()] == ([before] if before else [])


def test_atomic_file_replaces_what_was_there(tmp_path):
    target = tmp_path / "file.txt"
    for text in ("old", "new"):
        with atomic_file(str(target)) as path:
            assert path.parent == target.parent  # a rename, not a copy across file systems
            path.write_text(text)
        assert target.read_text() == text
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_dir_leaves_nothing_half_written(tmp_path, error):
    target = tmp_path / "a" / "folder"
    with pytest.raises(error), atomic_dir(target) as path:
        (path / "half").touch()
        raise error
    assert not list(target.parent.iterdir())


def test_atomic_dir_fills_an_empty_folder_and_clears_leftovers(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (tmp_path / ".folder.partial" / "of a killed process").mkdir(parents=True)
    with atomic_dir(target) as path:
        assert not list(path.iterdir())
        (path / "new").mkdir()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("into", [atomic_dir, lambda target: resumable_dir(target, "settings")])
def test_a_folder_that_holds_something_is_never_replaced(tmp_path, into):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    with pytest.raises(UserError, match="folder is not empty .*thesis.tex.*remove it"), into(tmp_path / "folder"):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "thesis.tex"]


def test_resumable_dir_keeps_the_work_of_a_killed_process(tmp_path):
    target = tmp_path / "folder"
    with pytest.raises(KeyboardInterrupt), resumable_dir(target, "settings") as path:
        (path / "first").touch()
        raise KeyboardInterrupt
    assert not target.exists()
    with resumable_dir(target, "settings") as path:
        assert (path / "first").is_file()
        (path / "second").touch()
    assert {p.name for p in target.iterdir()} == {"first", "second", ".token"}
    assert list(tmp_path.iterdir()) == [target]


def test_resumable_dir_starts_empty_for_another_token(tmp_path):
    with pytest.raises(KeyboardInterrupt), resumable_dir(tmp_path / "folder", "settings") as path:
        (path / "first").touch()
        raise KeyboardInterrupt
    with resumable_dir(tmp_path / "folder", "other settings") as path:
        assert [p.name for p in path.iterdir()] == [".token"]
    assert [p.name for p in (tmp_path / "folder").iterdir()] == [".token"]


def test_digests_are_hashlibs(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256(data) == hashlib.new("sha256", data).hexdigest()
