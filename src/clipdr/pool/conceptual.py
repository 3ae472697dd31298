"""Addresses and captions of CC3M and CC12M in the form of DataComp's metadata, for a pool of kind `datacomp`.

Both are published as lines without a header: a caption, a tab and an address (CC3M), or an address, a tab and a caption
(CC12M). A pair is called after its address; an address that stands twice counts once. Lines of both sets lie in one
order by that name, so that shards are mixtures.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as lines

from clipdr.errors import UserError
from clipdr.files import atomic_file, reason, sha256
from clipdr.progress import log

SIDES = ("left", "right")
UID = 32  # hexadecimal digits


def write_metadata(sources: Sequence[Path], output: Path) -> None:
    """Write a parquet file with the columns uid, url and text. All pairs are held in memory, a million take 0.7 GB.

    Args:
        sources: the published .tsv files.
        output: file to write.

    Raises:
        UserError: a source cannot be read, or has no line with an address and a caption.
    """
    pairs = pa.concat_tables(_pairs(source) for source in sources).to_pandas(types_mapper=pd.ArrowDtype)
    pairs.insert(0, "uid", [sha256(url.encode())[:UID] for url in pairs["url"]])
    unique = pairs.drop_duplicates("uid").sort_values("uid")
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as partial:
        unique.to_parquet(partial, index=False)
    log.info("%s: %d pairs", output, len(unique))
    if twice := len(pairs) - len(unique):
        log.warning("%d lines left out: the address stands twice", twice)


def _pairs(source: Path) -> pa.Table:
    """url and text of the lines that have both."""
    broken = 0

    def skip(row) -> str:
        nonlocal broken
        broken += 1
        return "skip"

    try:
        table = lines.read_csv(
            source,
            lines.ReadOptions(column_names=SIDES),
            lines.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=skip),
            lines.ConvertOptions(column_types=dict.fromkeys(SIDES, pa.string()), strings_can_be_null=False),
        )
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        raise UserError(f"{source} cannot be read ({reason(error)}); fetch it again") from None
    address = {side: pc.match_substring_regex(table[side], "^https?://") for side in SIDES}
    url = pc.if_else(address["left"], table["left"], table["right"])
    text = pc.if_else(address["left"], table["right"], table["left"])
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"\s+", " "))
    good = pc.and_(pc.xor(address["left"], address["right"]), pc.not_equal(text, ""))
    found = pa.table({"url": url, "text": text}).filter(good)
    if not len(found):
        raise UserError(f"{source} has no line of an address, a tab and a caption; fetch it again")
    if left_out := broken + len(table) - len(found):
        log.warning("%s: %d lines left out: they are not an address and a caption", source, left_out)
    return found
