"""Writing a picture: as PNG, and beside it as SVG, in the same bytes each time."""

from pathlib import Path

from clipdr.files import atomic_file

KINDS = {".svg": {"metadata": {"Date": None, "Creator": None}}, ".png": {"dpi": 150, "metadata": {"Software": None}}}


def save(figure, output: Path) -> None:
    """Write a matplotlib figure to `output`, a PNG, and to the SVG of the same name, and close it."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "clipdr"}):  # else names within the SVG are drawn at random
        for suffix, options in KINDS.items():
            with atomic_file(output.with_suffix(suffix)) as partial:
                figure.savefig(partial, format=suffix[1:], facecolor="white", **options)
    plt.close(figure)
