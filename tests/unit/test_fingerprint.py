"""A fingerprint changes when the code behind a command does, and only then."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from clipdr.errors import UserError
from clipdr.fingerprint import closure, fingerprint

REPO = Path(__file__).parents[2]
FILES = {
    "__init__.py": '"""Package."""\n',
    "errors.py": "class UserError(Exception):\n    pass\n",
    "losses/__init__.py": "",
    "losses/contrastive.py": "TEMPERATURE = 0.07\n",
    "losses/unused.py": "X = 1\n",
    "train/__init__.py": "",
    "train/__main__.py": "from .loop import train\n\ntrain()\n",
    "train/loop.py": '''
        """Trains."""
        import json
        from ..losses import contrastive
        from pkg import errors

        def train(steps=3):
            """Train for some steps."""
            import pkg.lazy
            # a comment
            return steps + 1
        ''',
    "lazy.py": "from pkg.train.loop import train\nimport other.thing\n",  # a cycle
    "report.py": "Y = 1\n",
}
TRAIN = [
    "pkg",
    "pkg.errors",
    "pkg.lazy",
    "pkg.losses",
    "pkg.losses.contrastive",
    "pkg.train",
    "pkg.train.__main__",
    "pkg.train.loop",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, textwrap.dedent(text))
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    file = root / "src/pkg" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def edit(root: Path, name: str, old: str, new: str) -> None:
    file = root / "src/pkg" / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_closure_follows_every_form_of_import(root):
    assert closure("pkg.train", root) == TRAIN


def test_closure_starts_at_what_is_asked_for(root):
    assert closure("pkg.report", root) == ["pkg", "pkg.report"]
    assert closure("pkg", root) == ["pkg"]
    write(root, "a.py", "def f():\n    from pkg.losses.contrastive import TEMPERATURE\n")
    assert closure("pkg.a", root) == ["pkg", "pkg.a", "pkg.losses", "pkg.losses.contrastive"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import pkg.losses.unused as u", "pkg.losses.unused"),
        ("from pkg.losses import unused as u", "pkg.losses.unused"),
        ("from .unused import X", "pkg.losses.unused"),
        ("from . import unused", "pkg.losses.unused"),
        ("from .. import report", "pkg.report"),
        ("from ..report import Y", "pkg.report"),
        ("from pkg import report", "pkg.report"),
        ("if 0:\n    import pkg.report", "pkg.report"),
        ("class A:\n    def f(self):\n        from pkg.report import Y", "pkg.report"),
    ],
)
@pytest.mark.parametrize("file", ["losses/contrastive.py", "losses/__init__.py"])
def test_each_form_of_import_is_seen_in_modules_and_packages(root, line, expected, file):
    assert expected not in closure("pkg.train", root)
    write(root, file, line + "\n")
    assert expected in closure("pkg.train", root)


def test_comments_formatting_and_docstrings_change_nothing(root):
    before = fingerprint("pkg.train", root)
    assert len(before) == 12 and int(before, 16) >= 0
    edit(root, "train/loop.py", "# a comment", "# another\n\n\n    # and one more")
    edit(root, "train/loop.py", "def train(steps=3):", "def train(\n    steps=3,\n):")
    edit(root, "train/loop.py", "Train for some steps.", "Train for a while.")
    edit(root, "train/loop.py", '"""Trains."""', "")
    edit(root, "errors.py", "    pass", '    """Read by users."""\n\n    pass')
    assert fingerprint("pkg.train", root) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train/loop.py", "steps + 1", "steps + 2"),
        ("train/loop.py", "steps=3", "steps=4"),
        ("train/__main__.py", "train()", "train(5)"),
        ("losses/contrastive.py", "0.07", "0.08"),
        ("losses/contrastive.py", "TEMPERATURE", "TAU"),
        ("lazy.py", "import other.thing", "import other.thing as x"),
        ("__init__.py", '"""Package."""', "X = 1"),
    ],
)
def test_changed_code_anywhere_in_the_closure_changes_the_fingerprint(root, file, old, new):
    before = fingerprint("pkg.train", root)
    edit(root, file, old, new)
    changed = fingerprint("pkg.train", root)
    assert changed != before
    edit(root, file, new, old)
    assert fingerprint("pkg.train", root) == before


RAISES = """
def check(n, error=None):
    if n < 0:
        raise ValueError("negative")
    if n > 9:
        raise UserError(f"{n} is large, {n - 9} too large") from None
    if n == 5:
        raise UserError("five") from error
    return "between"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"negative"', '"below zero"'),
        ('f"{n} is large, {n - 9} too large"', 'f"{n}: at most 9"'),
        ('f"{n} is large, {n - 9} too large"', '"too large"'),
        ('"five"', '"no five " "please"'),
    ],
)
def test_another_wording_of_an_error_changes_nothing(root, old, new):
    write(root, "report.py", RAISES)
    before = fingerprint("pkg.report", root)
    edit(root, "report.py", old, new)
    assert fingerprint("pkg.report", root) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ValueError", "TypeError"),
        ("from None", "from error"),
        ("n > 9", "n > 8"),
        ('raise ValueError("negative")', 'return "negative"'),
        ('"between"', '"inside"'),
    ],
)
def test_another_error_or_a_text_that_is_no_error_counts(root, old, new):
    write(root, "report.py", RAISES)
    before = fingerprint("pkg.report", root)
    edit(root, "report.py", old, new)
    assert fingerprint("pkg.report", root) != before


def test_a_text_that_is_no_docstring_counts(root):
    edit(root, "losses/contrastive.py", "TEMPERATURE = 0.07", "def f():\n    return 'a'")
    before = fingerprint("pkg.train", root)
    edit(root, "losses/contrastive.py", "'a'", "'b'")
    assert fingerprint("pkg.train", root) != before


def test_other_modules_change_nothing(root):
    before = fingerprint("pkg.train", root)
    edit(root, "report.py", "Y = 1", "Y = 2")
    edit(root, "losses/unused.py", "X = 1", "X = 2")
    write(root, "new.py", "import pkg.train.loop\n")
    assert fingerprint("pkg.train", root) == before
    assert fingerprint("pkg.report", root) != fingerprint("pkg.losses.unused", root)


def test_the_folder_of_the_repository_does_not_matter(root, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    for name, text in FILES.items():
        write(copy, name, textwrap.dedent(text))
    assert fingerprint("pkg.train", root) == fingerprint("pkg.train", copy)


def test_a_module_that_is_missing_or_broken_is_one_line(root):
    with pytest.raises(UserError, match=r"src/pkg/trian\.py does not exist"):
        fingerprint("pkg.trian", root)
    write(root, "report.py", "Y = 1\nX = = 2\n")
    with pytest.raises(UserError, match=r"src/pkg/report\.py line 2: invalid syntax"):
        fingerprint("pkg.report", root)


def test_the_closure_covers_what_python_really_imports():
    """Against the interpreter: every module of this package that a start loads is in the static closure."""
    code = "import sys, clipdr.config; print(*(m for m in sys.modules if m.split('.')[0] == 'clipdr'))"
    env = {"PYTHONPATH": str(REPO / "src")}
    loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) <= set(closure("clipdr.config", REPO))
    assert "clipdr.errors" in closure("clipdr.config", REPO)
    assert "clipdr.fingerprint" not in closure("clipdr.config", REPO)


@pytest.mark.parametrize(
    ("module", "others"),
    [
        # Objectives are imported by name; the rule `train` fingerprints that of the run.
        ("clipdr.train.run", ["clipdr.models.create", "clipdr.models.weights", "clipdr.losses.reinforced"]),
        ("clipdr.train.run", ["clipdr.cli", "clipdr.model_files", "clipdr.evaluate"]),
        ("clipdr.zoo.train", ["clipdr.models.create", "clipdr.losses.reinforced"]),
        ("clipdr.deploy.export", ["clipdr.config", "clipdr.experiments", "clipdr.deploy.counts"]),
        ("clipdr.deploy.latency", ["clipdr.config", "clipdr.models.create"]),
    ],
)
def test_expensive_work_does_not_depend_on_what_it_does_not_use(module, others):
    for other in others:
        assert closure(other, REPO)  # it exists
        assert other not in closure(module, REPO)
