"""A run's pictures and its report: one HTML page that carries everything in it, without script.

Plain arrays in, files out; nothing is computed here that the page does not show.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

# Okabe and Ito's colours, told apart by the colour-blind too
CLASS_COLOURS = {"N": "#7f7f7f", "S": "#0072b2", "V": "#d55e00", "F": "#cc79a7", "Q": "#009e73"}
CLASS_COLOURS |= {str(number): to_hex(colormaps["tab10"](number)) for number in range(10)}  # of images
TERM_COLOURS = {"nse": "#0072b2", "distance": "#009e73", "score": "#d55e00"}
TERM_NAMES = {"nse": "NSE (eq. 3)", "distance": "D (eq. 4)", "score": "S (eq. 2)"}
LOSS_NAMES = {
    "total": "loss (eq. 1)",
    "reconstruction": "reconstruction",
    "kl": "KL divergence, nats",
    "capacity": "capacity C, nats",
    "watched_nse": "NSE, normal, that set scales",
}
_DPI = 110
_ROC_POINTS = 500


@dataclass(frozen=True)
class Words:
    """What differs in words between reports of heartbeats and of images.

    owner: what owns a reference; axis: what stands below a reconstruction.
    """

    one: str
    owner: str
    reconstructions: str
    caution: str
    axis: str = ""


BEATS = Words(
    "beat",
    "patient",
    "Test beats as the model sees them (from the R peak, scaled to [0, 1], padded with zeros) and what it makes of "
    "them. Drawn at random, not chosen.",
    " ecgwatch is no medical device.",
    "sample after the R peak",
)
BEDSIDE = replace(
    BEATS,
    reconstructions="Test beats as the model sees them (in units of their typical beat's amplitude) and what it "
    "makes of them; the typical beat, RR interval and pauses, which it sees too, are not drawn. Drawn at random, not "
    "chosen.",
    axis="sample of the window, which begins before the R peak",
)
IMAGES = Words(
    "image",
    "class",
    "Test images with their class and NSE; below each, what the model makes of it. Drawn at random, not chosen.",
    "",
)


@dataclass(frozen=True)
class Example:
    """A beat or an image and its reconstruction, float[length], float[height, width] or [3, height, width] each."""

    kind: str
    x: np.ndarray
    y: np.ndarray
    nse: float


@dataclass(frozen=True)
class Table:
    """A table of the page; cells are text or numbers, None is shown as a dash."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True)
class Report:
    """What a report shows.

    names: of classes, in words. losses: one row per epoch, keys as in LOSS_NAMES and `epoch`. examples: in the order
    shown. positions, owners: the reference map, float[n, 2] and the patient or class of each point. placed, kinds:
    evaluation beats or images in it, float[m, 2] and class. terms: nse, distance, score of those under the ROC curves,
    float[k]; abnormal: bool[k], theirs.
    """

    words: Words
    names: Mapping[str, str]
    title: str
    protocol: str
    losses: Sequence[Mapping[str, float]]
    examples: Sequence[Example]
    positions: np.ndarray
    owners: np.ndarray
    placed: np.ndarray
    kinds: np.ndarray
    terms: Mapping[str, np.ndarray]
    abnormal: np.ndarray
    tables: Sequence[Table]
    parameters: Mapping[str, object]
    versions: Mapping[str, str]


def write(folder: Path, report: Report) -> Path:
    """Write losses.png, reconstructions.png, map.png, roc.png and report.html into a run folder; return the page."""
    images = {**save_pictures(folder, report, OF_TRAINING), **save_pictures(folder, report, OF_BUNDLE)}
    page = folder / "report.html"
    page.write_text(_page(report, images), encoding="utf-8")
    return page


def save_pictures(folder: Path, report: Report, drawn: Mapping[str, Callable[[Report], Figure]]) -> dict[str, bytes]:
    """Draw pictures into a folder; return them by file name."""
    images = {name: _png(draw(report)) for name, draw in drawn.items()}
    for name, image in images.items():
        (folder / name).write_bytes(image)
    return images


def losses_picture(report: Report) -> Figure:
    """Draw the loss and its parts over the epochs, and the NSE of normal beats that calibrate."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = (("total", "reconstruction"), ("kl", "capacity"), ("watched_nse",))
    for axes, names in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in names:
            values = [row[name] for row in report.losses]
            style = "--" if name == "capacity" else "-"
            axes.plot([row["epoch"] for row in report.losses], values, style, label=LOSS_NAMES[name])
        axes.set_xlabel("epoch")
        if "capacity" not in names:
            axes.set_yscale("log")
        axes.legend(frameon=False)
        light(axes)
    return figure


def reconstructions_picture(report: Report) -> Figure:
    """Draw each example beat with its reconstruction over it, each example image with its own below."""
    if report.examples and report.examples[0].x.ndim > 1:
        return _image_reconstructions(report.examples)
    figure, grid = panels(len(report.examples), 4, (2.75, 1.9), sharex=True, sharey=True)
    for axes, example in zip(grid, report.examples, strict=True):
        axes.plot(example.x, color="#333333", linewidth=1.2, label="input")
        axes.plot(example.y, color="#d55e00", linewidth=1.2, label="reconstruction")
        axes.set_title(f"{_class_name(report, example.kind)}: NSE {example.nse:.3f}", fontsize=9)
        light(axes)
    if report.examples:
        grid[0].legend(frameon=False, fontsize=8)
    figure.supxlabel(report.words.axis, fontsize=9)
    return figure


def _image_reconstructions(examples: Sequence[Example]) -> Figure:
    columns = 10
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(11, 2.5 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, example in enumerate(examples):
        row, column = divmod(number, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        for axes, image in ((above, example.x), (below, example.y)):
            last = np.moveaxis(image, 0, -1) if image.ndim == 3 else image  # where matplotlib wants the colours
            axes.imshow(last.clip(0, 1), cmap="gray", vmin=0, vmax=1)
        above.set_title(f"{example.kind}: {example.nse:.3f}", fontsize=8)
    return figure


def map_picture(report: Report) -> Figure:
    """Draw the reference map twice: with evaluation beats or images by class, and by the owner of each reference.

    One that lies far outside is drawn at the edge of the picture, in its direction.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    by_class, by_owner = figure.subplots(1, 2)
    by_class.scatter(*report.positions.T, s=2, color="#dddddd", linewidths=0, rasterized=True)
    middle, reach = extent(report.positions)
    inside = pull_in(report.placed, middle, 1.5 * reach)
    for kind in dict.fromkeys(report.kinds.tolist()):  # normal ones come first, so that they hide nothing
        rows = report.kinds == kind
        label = f"{_class_name(report, kind)} ({rows.sum()})"
        by_class.scatter(*inside[rows].T, s=5, color=CLASS_COLOURS[kind], linewidths=0, alpha=0.6, label=label)
    many = f"{report.words.one}s"
    by_class.set_title(f"evaluation {many}, by class; light grey: reference {many}", fontsize=10)
    owners = np.unique(report.owners).tolist()
    for number, owner in enumerate(owners):
        points = report.positions[report.owners == owner].T
        colour = CLASS_COLOURS.get(owner, colormaps["hsv"](number / len(owners)))
        by_owner.scatter(*points, s=2, color=colour, linewidths=0, label=owner, rasterized=True)
    by_owner.set_title(f"reference {many}, by {report.words.owner}", fontsize=10)
    for axes in (by_class, by_owner):
        axes.set_aspect("equal")
        axes.set_xlim(middle[0] - 1.6 * reach, middle[0] + 1.6 * reach)
        axes.set_ylim(middle[1] - 1.6 * reach, middle[1] + 1.6 * reach)
        axes.set_xticks([])
        axes.set_yticks([])
    by_class.legend(fontsize=8, markerscale=2.5, loc="lower left")
    by_owner.legend(fontsize=6, markerscale=4, ncols=-(-len(owners) // 24), loc="upper left", frameon=False)
    return figure


def roc_picture(report: Report) -> Figure:
    """Draw the ROC curve of each term."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for name, values in report.terms.items():
        false_rate, true_rate, _ = roc_curve(report.abnormal, values)
        shown = np.unique(np.linspace(0, len(false_rate) - 1, _ROC_POINTS).round().astype(int))
        label = f"{TERM_NAMES[name]}: {roc_auc_score(report.abnormal, values):.3f}"
        axes.plot(false_rate[shown], true_rate[shown], color=TERM_COLOURS[name], label=label)
    axes.set_xlabel(f"false alert rate: share of normal {report.words.one}s")
    axes.set_ylabel(f"sensitivity: share of abnormal {report.words.one}s")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", title="area under the curve", fontsize=9)
    light(axes)
    return figure


OF_TRAINING: dict[str, Callable[[Report], Figure]] = {
    "losses.png": losses_picture,
    "reconstructions.png": reconstructions_picture,
}
OF_BUNDLE: dict[str, Callable[[Report], Figure]] = {"map.png": map_picture, "roc.png": roc_picture}


def panels(
    count: int, most: int, size: tuple[float, float], rim: tuple[float, float] = (0, 0), **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, at most so many in a row; size: of one, rim: what is beside them, inches."""
    columns = max(1, min(most, count))
    lines = max(1, -(-count // columns))
    figure = Figure(figsize=(size[0] * columns + rim[0], size[1] * lines + rim[1]), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def light(axes: Axes) -> None:
    """Draw axes without the upper and right line, over a pale grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def _class_name(report: Report, kind: str) -> str:
    return f"{kind}, {name}" if (name := report.names[kind]) else kind


def extent(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the middle of a map and the half of its larger side."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    return (low + high) / 2, float((high - low).max() / 2) or 1.0


def pull_in(places: np.ndarray, middle: np.ndarray, reach: float) -> np.ndarray:
    """Move what lies outside a square of half side `reach` to its edge, along the line to the middle."""
    offset = places - middle
    return middle + offset / np.maximum(1, np.abs(offset).max(axis=1, keepdims=True) / reach)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # without date and version: the same run gives the same bytes
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
p.note { color: #555; max-width: 60rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e4e4e4; text-align: right; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #999; }
"""


def _page(report: Report, images: Mapping[str, bytes]) -> str:
    title, one = html.escape(report.title), report.words.one
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="note">{html.escape(report.protocol.rstrip("."))}.{report.words.caution}</p>',
        *map(_table, report.tables),
        _picture("ROC curves", "roc.png", images, f"Test {one}s, each term of the score by itself and both together."),
        _picture(
            "Reference map",
            "map.png",
            images,
            f"One point for each {one}. Distances to the nearest reference {one} are the term D; what lies far outside "
            "is drawn at the edge. How far clusters lie apart means little in a t-SNE map.",
        ),
        _picture(
            "Reconstructions",
            "reconstructions.png",
            images,
            report.words.reconstructions,
        ),
        _picture(
            "Training",
            "losses.png",
            images,
            f"Means over each epoch; the NSE, of {one}s that set scales, chooses nothing.",
        ),
        _table(Table("Parameters", "", ("parameter", "value"), [(k, _plain(v)) for k, v in report.parameters.items()])),
        _table(Table("Versions", "", ("library", "version"), list(report.versions.items()))),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _picture(title: str, name: str, images: Mapping[str, bytes], note: str) -> str:
    data = base64.b64encode(images[name]).decode()
    return (
        f'<h2>{html.escape(title)}</h2>\n<p class="note">{html.escape(note)}</p>\n'
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    note = f'\n<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    rows = f"<tr>{head}</tr>\n{body}"
    return f'<h2>{html.escape(table.title)}</h2>{note}\n<div class="scroll"><table>\n{rows}\n</table></div>'


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
