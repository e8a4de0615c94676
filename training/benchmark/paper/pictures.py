"""The paper's figures, from what is saved; small: few colours, few points, no more pixels than a page needs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from training.benchmark.auroc import auroc
from training.benchmark.paper.cells import ENCODERS, JOINT
from training.benchmark.paper.choices import at, best_of, over_beta, select
from training.benchmark.paper.results import SAMPLED, Cell, Row
from training.benchmark.paper.tables import shares
from training.benchmark.placement_tables import ALPHAS, LATENT
from training.parameters import CLASSES
from training.report import CLASS_COLOURS, extent, light, panels, pull_in

_DPI = 80
_COLOURS = 96
_DRAWN = 1500  # points in a map
_STEPS = 150  # of a ROC curve
ABNORMAL = "#000000"
ENCODER_COLOURS = dict(zip(ENCODERS, ("#d55e00", "#0072b2", "#009e73"), strict=True))


def heat(shown: Mapping[str, Sequence[Row]], distance: str) -> Figure:
    """Draw AUROC over alpha and beta (figures 2, 8), a panel for each class; rows: the class's, any beta."""
    betas = sorted({row.beta for rows in shown.values() for row in at(rows, JOINT, distance=distance)})
    figure, grid = panels(len(shown), len(shown), (4.6, 0.24 * len(betas) + 1.7), (0.5, 0))
    for axes, (name, rows) in zip(grid, shown.items(), strict=True):
        found = over_beta(at(rows, JOINT, distance=distance))
        aurocs = np.array([found.get(beta, np.full(len(ALPHAS), np.nan)) for beta in betas])
        image = axes.imshow(aurocs, aspect="auto", cmap="viridis")
        axes.set_xticks(range(len(ALPHAS)), [f"{alpha:g}" for alpha in ALPHAS], rotation=90, fontsize=7)
        axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas], fontsize=7)
        axes.set_xlabel("alpha", fontsize=8)
        axes.set_ylabel("beta", fontsize=8)
        axes.set_title(name, fontsize=9)
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)
    return figure


def maps(shown: Mapping[str, tuple[Cell, str]]) -> Figure:
    """Draw joint maps (figures 3, 9-11), test points by class, the anomalous one black, references grey."""
    figure, grid = panels(len(shown), 4, (3.1, 3.1), (0, 0.2))
    for axes, (name, (cell, placing)) in zip(grid, shown.items(), strict=True):
        axes.set_axis_off()
        _one_map(axes, cell, placing)
        axes.set_title(name, fontsize=9)
    return figure


def _one_map(axes: Axes, cell: Cell, placing: str) -> None:
    placed = cell.ways[placing]
    rng = np.random.default_rng(0)
    middle, reach = extent(placed.among)
    shown = rng.permutation(len(placed.among))[:_DRAWN]
    x, y = placed.among[shown].T
    axes.scatter(x, y, s=1, color="#dddddd", linewidths=0)
    tested = rng.permutation(len(cell.kinds))[:_DRAWN]
    for kind in sorted(set(cell.kinds), key=lambda kind: (kind in cell.experiment.absent, kind)):
        rows = tested[cell.kinds[tested] == kind]
        colour = ABNORMAL if kind in cell.experiment.absent else CLASS_COLOURS[kind]
        x, y = pull_in(placed.places[rows], middle, 1.6 * reach).T
        axes.scatter(x, y, s=2, color=colour, linewidths=0, label=kind)
    axes.legend(fontsize=6, markerscale=3, frameon=False, loc="upper right", handletextpad=0, borderpad=0)
    axes.set_aspect("equal")


def roc(shown: Mapping[str, tuple[Cell, str]]) -> Figure:
    """Draw the four ROC curves (figures 4, 12-18): S with its best alpha, t-SNE, reconstruction, latent distance."""
    figure, grid = panels(len(shown), 5, (2.5, 2.7), (0, 0.2))
    for axes, (name, (cell, placing)) in zip(grid, shown.items(), strict=True):
        _curves(axes, cell, placing)
        axes.set_title(name, fontsize=9)
    return figure


def _curves(axes: Axes, cell: Cell, placing: str = JOINT) -> None:
    d, nse = cell.ways[placing].test[:, 0], cell.nse[SAMPLED]
    mixed = [(alpha, alpha * nse + (1 - alpha) * d) for alpha in ALPHAS]
    alpha, best = max(mixed, key=lambda one: _area(one[1], cell.abnormal))
    curves = {
        f"S, alpha {alpha:g}": best,
        "t-SNE": d,
        "reconstruction": nse,
        "latent distance": cell.ways[LATENT].test[:, 0],
    }
    for (name, values), colour in zip(curves.items(), ("#d55e00", "#009e73", "#0072b2", "#999999"), strict=True):
        label = f"{name} {_area(values, cell.abnormal):.3f}"
        axes.plot(*curve(values, cell.abnormal), color=colour, linewidth=1.1, label=label)
    axes.legend(fontsize=6, frameon=False, loc="lower right")
    axes.tick_params(labelsize=7)
    light(axes)


def _area(values: np.ndarray, abnormal: np.ndarray) -> float:
    return float(auroc(values, abnormal)[0])


def curve(values: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates at quantiles of the normal points, float64[.] each."""
    thresholds = np.quantile(values[~abnormal], np.linspace(1, 0, _STEPS))
    false, true = (np.array([(values[mask] >= t).mean() for t in thresholds]) for mask in (~abnormal, abnormal))
    return np.r_[0, false, 1], np.r_[0, true, 1]


def reconstructions(cell: Cell) -> Figure:
    """Draw inputs and reconstructions (figure 6a), normal ones above, anomalous below; then map and ROC (6b, c)."""
    x, y, abnormal = cell.examples
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, squeeze=False, width_ratios=(2.2, 1, 1))[0]
    each = int((~abnormal).sum())
    for axes, here, there, bad in zip(left.subplots(2, each).flat, x, y, abnormal, strict=True):
        axes.plot(here, color="#000000", linewidth=0.9)
        axes.plot(there, color="#d55e00" if bad else "#0072b2", linewidth=0.9)
        axes.set_xticks([])
        axes.tick_params(labelsize=6)
        light(axes)
    left.suptitle("input black; reconstruction blue (normal), red (anomalous)", fontsize=8)
    axes = middle.subplots()
    axes.set_axis_off()
    _one_map(axes, cell, JOINT)
    _curves(right.subplots(), cell)
    return figure


def encoders(rows: Sequence[Row]) -> Figure:
    """Draw S of each encoder on each ECG class (figure 5); rows: any; beta .01, seed 0, best alpha."""
    chosen_rows = select(rows, dataset="arrhythmia", split="by-beat", share=1.0, beta=0.01, seed=0)
    figure = Figure(figsize=(5.5, 2.6), layout="constrained")
    axes = figure.subplots()
    for offset, (encoder, colour) in enumerate(ENCODER_COLOURS.items()):
        for place, anomaly in enumerate(CLASSES["arrhythmia"]):
            best = best_of(at(select(chosen_rows, network=encoder, anomaly=anomaly), JOINT))
            if best:
                label = encoder.upper() if place == 0 else None
                axes.bar(place + 0.27 * (offset - 1), best.auroc, 0.25, color=colour, label=label)
                axes.text(place + 0.27 * (offset - 1), best.auroc + 0.006, f"{best.auroc:.3f}", fontsize=6, ha="center")
    axes.set_xticks(range(len(CLASSES["arrhythmia"])), list(CLASSES["arrhythmia"]))
    axes.set_ylim(0.5, 1.02)
    axes.set_ylabel("AUROC of S")
    figure.legend(fontsize=7, frameon=False, ncols=3, loc="outside upper center")
    light(axes)
    return figure


def training_size(rows: Sequence[Row]) -> Figure:
    """Draw S of each ECG class against the share of the training part; beta .01, seed 0, best alpha."""
    figure = Figure(figsize=(5, 2.8), layout="constrained")
    axes = figure.subplots()
    of_all = select(rows, dataset="arrhythmia", split="by-beat", network=ENCODERS[0], beta=0.01, seed=0)
    for anomaly in CLASSES["arrhythmia"]:
        found = [(s, best_of(at(select(of_all, share=s, anomaly=anomaly), JOINT))) for s in shares()]
        known = [(share, best.auroc) for share, best in found if best]
        if known:
            axes.plot(*zip(*known, strict=True), "o-", color=CLASS_COLOURS[anomaly], label=anomaly, markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(shares(), [f"{share:g}" for share in shares()])
    axes.minorticks_off()
    axes.set_xlabel("share of the training part")
    axes.set_ylabel("AUROC of S")
    figure.legend(fontsize=7, frameon=False, loc="outside right center")
    light(axes)
    return figure


def save(file: Path, figure: Figure, mark: str = "") -> None:
    """Write a figure as a PNG of few colours; mark: what stands above it."""
    if mark:
        figure.suptitle(mark, fontsize=8, color="#b00000")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(_COLOURS).save(file, optimize=True)
