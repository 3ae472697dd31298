"""Write docs/reruns.md: which rules a change of each module makes again. `python docs/write_reruns.py`

It reads the rules and follows imports as `clipdr.fingerprint` does; a test compares the page with what it would write.
"""

import importlib.util
from pathlib import Path

REPO = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("write", REPO / "envs/write.py")
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)

HEAD = """# What a change makes again

<!-- Written by `python docs/write_reruns.py` out of workflow/rules and the imports of src. -->

Each rule carries a fingerprint of the code that its job runs: syntax trees without comments, docstrings and the words
of errors. A change of a module makes the jobs of the rules beside it again, and what is made from them. A module that
is not here makes nothing again: it only reads configuration, prints, or is called by people. Neither do `profiles/`,
`resources` of a scale, documents and tests. An edited environment makes again what runs in it.

Objectives (`clipdr.losses`), teachers that are asked online, and scoring on the way belong to the runs that name them.
"""


def render() -> str:
    """The page."""
    of_module: dict[str, list[str]] = {}
    for rule, found in write.rules().items():
        for module in write.fingerprinted(found):
            of_module.setdefault(module, []).append(rule)
    lines = [f"| `{module}` | {', '.join(sorted(rules))} |" for module, rules in sorted(of_module.items())]
    return "\n".join([HEAD, "| module | rules |", "|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    (REPO / "docs/reruns.md").write_text(render())
