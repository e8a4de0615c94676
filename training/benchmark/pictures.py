"""Pictures of the comparisons, from what is saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.benchmark import crowd, map_ways, references
from training.benchmark.placement_tables import JOINT, OURS, Row
from training.report import extent, light, panels, pull_in

NORMAL, ABNORMAL, REFERENCE = "#0072b2", "#d55e00", "#d9d9d9"
_DRAWN = 700  # points of each kind in a map
_DPI = 110


def maps(file: Path, ways: Mapping[str, map_ways.Placed], abnormal: np.ndarray) -> None:
    """Draw the joint map and the frozen one, each with the same normal and abnormal test points."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    titles = {JOINT: "joint map: embedded together with the test points", OURS: "frozen map: each placed alone"}
    rng = np.random.default_rng(0)
    shown = [rng.permutation(np.flatnonzero(mask))[:_DRAWN] for mask in (~abnormal, abnormal)]
    for axes, (way, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        placed = ways[way]
        axes.scatter(*placed.among.T, s=2, color=REFERENCE, linewidths=0, rasterized=True, label="references")
        middle, reach = extent(placed.among)
        for rows, colour, label in zip(shown, (NORMAL, ABNORMAL), ("normal", "abnormal"), strict=True):
            inside = pull_in(placed.places[rows], middle, 1.6 * reach)
            axes.scatter(*inside.T, s=5, color=colour, alpha=0.6, linewidths=0, label=f"{label} test points")
        axes.set_title(title, fontsize=10)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    axes.legend(fontsize=8, markerscale=2.5, loc="lower left")
    figure.supxlabel("beyond the frame: drawn at its edge", fontsize=8)
    _save(figure, file)


def ways(file: Path, rows: Sequence[Row], figure_of: str, name: str) -> None:
    """Draw one figure (d, s, s_best) of each way, a panel for each task, with bootstrap intervals where there are."""
    at_one = [row for row in rows if row.k == 1 and row.seed == 0 and getattr(row, figure_of) is not None]
    tasks = list(dict.fromkeys((row.dataset, row.task) for row in at_one))
    order = list(dict.fromkeys(row.way for row in at_one))
    figure, grid = panels(len(tasks), 6, (2.1, 0.24 * len(order)), (2.4, 1.2), sharey=True)
    for axes, task in zip(grid, tasks, strict=True):
        for row in (row for row in at_one if (row.dataset, row.task) == task):
            y = -order.index(row.way)
            low, high = getattr(row, f"{figure_of}_low", None), getattr(row, f"{figure_of}_high", None)
            if low is not None and high is not None:
                axes.plot([low, high], [y, y], color="#999999", linewidth=1)
            axes.plot(getattr(row, figure_of), y, "o", markersize=4, color=ABNORMAL if row.way == OURS else NORMAL)
        axes.set_title(": ".join(task) if len({dataset for dataset, _ in tasks}) > 1 else task[1], fontsize=9)
        axes.set_yticks([-number for number in range(len(order))], order, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        light(axes)
    figure.supxlabel(name, fontsize=9)
    _save(figure, file)


def crowds(file: Path, draws: Mapping[str, Sequence[crowd.Draw]]) -> None:
    """Draw mean AUROC against how many anomalies arrive together, both maps, a panel for each task."""
    figure, grid = panels(len(draws), len(draws), (4.2, 3.4), (0.6, 0))
    for axes, (task, made) in zip(grid, draws.items(), strict=True):
        counts = sorted({one.count for one in made})
        for way, colour, label in (("joint", NORMAL, "joint map"), ("frozen", ABNORMAL, "frozen map")):
            values = [[getattr(one, way) for one in made if one.count == count] for count in counts]
            errors = [1.96 * crowd.standard_error(of_count) for of_count in values]
            axes.errorbar(counts, list(map(np.mean, values)), errors, fmt="o-", color=colour, label=label, capsize=2)
        axes.set_xscale("log")
        axes.set_xlabel(f"anomalies among {crowd.NORMAL:,} normal test points")
        axes.set_ylabel("AUROC of D")
        axes.set_title(task, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        light(axes)
    _save(figure, file)


def reference_curve(file: Path, choices: Sequence[references.Choice], costs: Sequence[references.Cost]) -> None:
    """Draw AUROC of S and what the map costs, both against the number of references."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for way, colour in zip(references.WAYS, (NORMAL, ABNORMAL, "#009e73"), strict=True):
        counts = sorted({one.count for one in choices if one.way == way})
        s = [[one.s for one in choices if (one.way, one.count) == (way, count)] for count in counts]
        left.errorbar(counts, list(map(np.mean, s)), list(map(np.std, s)), fmt="o-", color=colour, label=way, capsize=2)
    left.set_ylabel("AUROC of S, patients left out of the map")
    for batch, colour in zip(references.BATCHES, (NORMAL, ABNORMAL, "#009e73"), strict=True):
        line = [one for one in costs if one.batch == batch]
        us = [one.whole_us - one.bare_us for one in line]
        right.plot([one.count for one in line], us, "o-", color=colour, label=f"batch {batch:,}")
    right.set_ylabel("the map, microseconds per beat, one core")
    for axes, title in ((left, "references chosen"), (right, None)):
        axes.set_xscale("log")
        axes.set_xlabel("references")
        axes.legend(frameon=False, title=title, fontsize=8)
        light(axes)
    _save(figure, file)


def rocs(file: Path, curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> None:
    """Draw ROC curves, a panel for each class: by class, then by score, false and true positive rates."""
    figure, grid = panels(len(curves), len(curves), (3.6, 3.7), (0.4, 0))
    for axes, (kind, scores) in zip(grid, curves.items(), strict=True):
        for (name, (false, true)), colour in zip(scores.items(), (ABNORMAL, NORMAL, "#999999"), strict=False):
            axes.plot(false, true, color=colour, linewidth=1.2, label=name)
        axes.set_title(f"{kind} against N", fontsize=10)
        axes.set_xlabel("share of normal beats above")
        axes.set_ylabel("share found")
        axes.legend(frameon=False, fontsize=7, loc="lower right")
        light(axes)
    _save(figure, file)


def examples(file: Path, shown: Mapping[str, Mapping[str, np.ndarray]], fs_hz: float, before_s: float) -> None:
    """Draw beats beside the typical beat, a panel for each record; beats by their label, as the model sees them."""
    figure, grid = panels(len(shown), 4, (2.9, 2.3), (0, 0.3))
    for axes, (record, beats) in zip(grid, shown.items(), strict=True):
        for (label, beat), colour in zip(beats.items(), ("#000000", ABNORMAL, NORMAL), strict=False):
            axes.plot(np.arange(len(beat)) / fs_hz - before_s, beat, color=colour, linewidth=1.1, label=label)
        axes.set_title(record, fontsize=9)
        axes.legend(frameon=False, fontsize=6)
        light(axes)
    figure.supxlabel("seconds from R; in units of the typical beat's amplitude", fontsize=8)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=_DPI, metadata={"Software": None})  # the same data give the same bytes
