"""The repository in another folder."""

import shutil
import subprocess
from pathlib import Path

REPO = Path(__file__).parents[1]


def copy_of_the_repository(folder: Path) -> Path:
    """The tracked and new files of the working tree: what a clone would hold."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=REPO, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, folder / name)
    return folder
