"""How the reports write numbers and tables: fixed decimals, a dash for what is missing, Markdown and LaTeX."""

import re

import pandas as pd

MISSING = "–"
TEX = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"},
    **{"[": "{[}", "*": "{*}"},  # after the end of a line, a bare [ or * would be read as an argument
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$"},
    **{"λ": r"$\lambda$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "−": r"$-$", "–": "--"},
}


def tex(text: object) -> str:
    """`text` with LaTeX's special characters escaped and a few signs (λ, ±, –) as LaTeX writes them."""
    return "".join(TEX.get(character, character) for character in str(text))


def number(value: float | None, decimals: int = 1, sign: str = "") -> str:
    """`value` with fixed decimals, or a dash for None and NaN."""
    return MISSING if pd.isna(value) else f"{value:{sign}.{decimals}f}"


def between(value: float, low: float, high: float, sign: str = "") -> str:
    """`value [low, high]`."""
    return f"{number(value, sign=sign)} [{number(low, sign=sign)}, {number(high, sign=sign)}]"


def markdown_table(lines: list[dict[str, str]]) -> str:
    """A Markdown table with the keys of the lines as its head."""
    escaped = [{key: value.replace("|", "\\|") for key, value in line.items()} for line in lines]
    return pd.DataFrame(escaped).to_markdown(index=False, disable_numparse=True)


def markdown_tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text, each as `markdown_table` takes it."""
    found = []
    for block in re.findall(r"(?:^\|.*(?:\n|\Z))+", text, re.MULTILINE):
        head, _, *body = [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
            for line in block.splitlines()
        ]
        found.append([dict(zip(head, cells, strict=True)) for cells in body])
    return found


def booktabs(comments: list[str], columns: str, lines: list[dict[str, str]]) -> str:
    """A LaTeX tabular with the keys of the lines as its head; `columns` says how each is aligned, as in `lrr`."""
    return "\n".join(
        [
            *comments,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(tex, lines[0])) + r" \\",
            r"\midrule",
            *(" & ".join(map(tex, line.values())) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
