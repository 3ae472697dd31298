"""Draw accuracy over latency: the latencies that were measured here on the left, the paper's on the right.

The panels have x-axes and colours of their own, because two devices share the order of the networks, not the level. The
accuracy is the paper's in both. A panel holds the rows that have the values it needs. Latency is the sum over both
towers. A label stands at the first of a fixed list of places around its point where it covers nothing.
"""

from collections.abc import Mapping
from pathlib import Path

from clipdr.errors import UserError, nearest
from clipdr.report.figure import OURS, PAPER
from clipdr.report.networks import read_latencies
from clipdr.report.picture import save
from clipdr.report.table import is_published
from clipdr.words import NETWORK_COLUMNS, evaluation_columns, networks

HIGHLIGHTED = "MobileCLIP"  # rows whose name begins so are the paper's own
GREY = "0.45"
STYLE = {"font.size": 9, "text.parse_math": False}
# Where a label may stand, in points from its point, best first; the second word says which side of it lies there.
PLACES = [
    (x * reach, y * reach, side)
    for reach in (6, 12, 20, 30, 42, 56)
    for x, y, side in [(1, 0, "left"), (-1, 0, "right"), (0.7, 1, "left"), (0.7, -1, "left")]
    + [(-0.7, 1, "right"), (-0.7, -1, "right"), (0, 1.3, "center"), (0, -1.3, "center")]
]


def draw(experiment: Mapping, results: Path, column: str, output: Path) -> None:
    """Write a PNG with the published values of `column` as accuracy.

    Raises UserError for a column without published accuracy, if no row has the values of a panel, and as
    clipdr.report.networks.read_latencies.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    known = [name for name in evaluation_columns(experiment) if is_published(experiment, name)]
    if column not in known:
        hint = f"{nearest(column, known)} (known: {', '.join(known) or 'none'})"
        raise UserError(f"--column: {column!r} has no published accuracy in this experiment{hint}")
    ours, conditions = measured(experiment, results, column)
    paper = published(experiment, column)
    for points, what in ((ours, "a network, and latency among columns"), (paper, "published latencies of both towers")):
        if not points:
            raise UserError(f"{experiment['title']}: no row has {column} and {what}; there is nothing to draw")
    threads = conditions["threads"]
    device = f"{conditions['device']}, {threads} thread{'' if threads == 1 else 's'}"
    panels = [(ours, "latency measured here, full-size networks with random weights", device, OURS)]
    panels.append((paper, "latency published by the paper", experiment["latency_device"], PAPER))
    with sns.axes_style("whitegrid", {"axes.edgecolor": "0.8", "grid.color": "0.92"}), plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained", sharey=True)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        figure.suptitle(f"Accuracy of the paper in both panels, none of ours ({experiment['source']})", fontsize=12)
        for axis, (points, title, where, color) in zip(axes, panels, strict=True):
            _panel(axis, points, color)
            axis.set_title(title, color=color, fontsize=10)
            axis.set_xlabel(f"image + text encoder, ms  ({where})", color=color)
        axes[0].set_ylabel(f"{column}, published (%)")
        axes[1].tick_params(labelleft=True)
        figure.draw_without_rendering()  # the layout settles the axes, on which the places of the labels depend
        for axis, (points, *_, color) in zip(axes, panels, strict=True):
            _labels(axis, points, color)
        save(figure, output)


def measured(experiment: Mapping, results: Path, column: str) -> tuple[dict[str, tuple[float, float]], dict]:
    """Row -> (ms of both towers measured here, published accuracy), and the conditions of the measurement."""
    latencies, conditions = read_latencies(Path(results) / "networks/latency", networks(experiment, "latency"))
    points = {}
    for row in experiment["rows"]:
        accuracy = row.get("published", {}).get(column)
        if row.get("network") in latencies and accuracy is not None:
            towers = latencies[row["network"]].values()
            points[row["name"]] = (sum(tower["value"] for tower in towers), accuracy)
    return points, conditions


def published(experiment: Mapping, column: str) -> dict[str, tuple[float, float]]:
    """Row -> (published ms of both towers, published accuracy)."""
    towers = [name for name, (quantity, _) in NETWORK_COLUMNS.items() if quantity == "latency"]
    points = {}
    for row in experiment["rows"]:
        *latency, accuracy = (row.get("published", {}).get(name) for name in (*towers, column))
        if None not in (*latency, accuracy):
            points[row["name"]] = (sum(latency), accuracy)
    return points


def _panel(axis, points: Mapping[str, tuple[float, float]], color: str) -> None:
    for highlighted, style in (
        (False, {"color": GREY, "marker": "o", "s": 26}),
        (True, {"color": color, "marker": "*", "s": 130}),
    ):
        chosen = [point for name, point in points.items() if name.startswith(HIGHLIGHTED) == highlighted]
        axis.scatter([x for x, _ in chosen], [y for _, y in chosen], linewidth=0, zorder=3, **style)
    axis.set_xlim(0, 1.15 * max(x for x, _ in points.values()))
    axis.margins(y=0.08)


def _labels(axis, points: Mapping[str, tuple[float, float]], color: str) -> None:
    from matplotlib.transforms import Bbox

    size = axis.figure.dpi / 72  # of a point in pixels
    marks = [axis.transData.transform(point) for point in points.values()]
    taken = [Bbox.from_bounds(x - 4 * size, y - 4 * size, 8 * size, 8 * size) for x, y in marks]
    frame = axis.get_window_extent().padded(-4 * size)
    for name, point in sorted(points.items(), key=lambda item: -item[1][1]):
        highlighted = name.startswith(HIGHLIGHTED)
        style = {
            "color": color if highlighted else GREY,
            "weight": "bold" if highlighted else "normal",
            "fontsize": 7.5,
        }
        for place in PLACES:
            text, box = _label(axis, name, point, place, style)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            if place is not PLACES[-1]:
                text.remove()
        taken.append(box.padded(size))


def _label(axis, name: str, point: tuple[float, float], place: tuple[float, float, str], style: Mapping):
    """The label at a place, with a thin line to its point if it is not next to it, and the pixels it covers."""
    from matplotlib.text import Text

    x, y, side = place
    near = abs(x) < 10 and abs(y) < 10
    arrow = None if near else {"arrowstyle": "-", "color": "0.7", "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
    text = axis.annotate(
        name, point, (x, y), textcoords="offset points", ha=side, va="center", arrowprops=arrow, zorder=4, **style
    )
    text.update_positions(axis.figure.canvas.get_renderer())
    return text, Text.get_window_extent(text)  # without the line
