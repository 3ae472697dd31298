"""What tables rest on as one file: in a fresh clone, after `tar --extract --gzip --file …`, nothing is left to make.

It holds folders of results with all that they were made from, logs and benchmarks of their jobs, and Snakemake's
records of how each file was made: without those a clone, whose files are all newer, would make everything again.
"""

import tarfile
from collections.abc import Iterable
from pathlib import Path

from clipdr import cli
from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.progress import progress
from clipdr.provenance import logs_of

RECORDS = Path(".snakemake/metadata")


def archive(paths: Iterable[str], output: Path) -> None:
    """Write a gzipped tar file of some results, with names relative to the working directory, and their times.

    Args:
        paths: files and folders, beginning with results/.
        output: the file.

    Raises:
        UserError: one of them is not there, or lies elsewhere.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        if path.parts[0] != "results" or ".." in path.parts:
            raise UserError(f"{path} does not lie in results; name what a workflow has made there")
        if not path.exists():
            raise UserError(f"{path} does not exist; make it first, then the archive")
    logs = [log for path in paths for log in logs_of(str(path), Path("results"))]
    timed = [Path("results/benchmarks", *log.with_suffix(".tsv").parts[2:]) for log in logs]
    every = [*paths, *logs, *filter(Path.exists, timed), *([RECORDS] if RECORDS.is_dir() else [])]
    with atomic_file(output) as partial, tarfile.open(partial, "w:gz", compresslevel=1) as file:
        for path in progress(dict.fromkeys(every), "archive", len(set(every))):
            file.add(path)


def main() -> None:
    parser = cli.parser(
        "clipdr.archive",
        "Put results, and how they were made, into one file.",
        "python -m clipdr.archive results/mini/tables results/runs --output archive.tar.gz",
    )
    parser.add_argument("paths", nargs="+", help="files and folders in results")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    archive(args.paths, args.output)


if __name__ == "__main__":
    cli.run(main)
