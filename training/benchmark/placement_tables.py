"""Saved distances -> rows and Markdown of how good each way of placing is.

S joins NSE and D in two ways: with alpha fixed at 1/2 after both are scaled by their quantiles on held-out normal
points (no anomaly is used; linearly, whether or not a model's own score takes logarithms), and with the best alpha of
the paper's grid on the test points themselves (as in the paper; flattering, and labelled so).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ecgwatch import scorer
from ecgwatch.errors import BundleError
from training import calibrate
from training.benchmark import map_ways
from training.benchmark.auroc import auroc, bootstrap, interval
from training.benchmark.placement import Experiment, way_file
from training.calibrate import ALPHA
from training.run_folder import read_arrays, read_parameters
from training.text import markdown_table

# section 4
ALPHAS = (0.0, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
RECONSTRUCTION = "reconstruction alone"
JOINT, LATENT, OURS = "joint map", "latent neighbours", "virtual peers"
LATENT_ALL, OURS_ALL = f"{LATENT}, all references", f"{OURS}, all references"
PLAIN = (LATENT, OURS)  # those that need no fit beyond the map
FIGURES = {
    "d": "AUROC of D alone",
    "s": "AUROC of S, alpha fixed at 1/2, no anomaly used",
    "s_best": "AUROC of S, best alpha on the test points (the paper's way)",
}
PROTOCOL = """# Placement: tables

Written by `ecgwatch benchmark placement`; docs/placement.md says what they mean. ECG: split by beat (patients shared),
models as in `training/release.py`; images: the official test images. 5,000 references unless the row says all; test
points are all anomalies of the task and enough normal ones to make 5,000, at least 2,500; k = 1 (CSV: 1, 3, 5).
"N normal" is the mean of the seeds in the CSV, all else one seed; how long each model was trained stands at the end.
Scales of NSE and D come from 2,000 held-out normal points, linearly (the release by beat takes logarithms); for the
joint map, D's from its references among each other. Intervals: 95 %, 1,000 paired bootstrap samples of the test points.
What was not computed is empty."""
PROTOCOL_QUICK = """# Placement: tables of the shortened form

**Shortened: 5 epochs on 6,000 beats, 2,000 references, at most 1,000 anomalies, one seed. The models are not fully
trained; tables.md has those that are.**"""
AGAINST = (JOINT, LATENT, LATENT_ALL)  # each way is compared with those that it has to be as good as


@dataclass(frozen=True)
class Row:
    """AUROC of one way in one experiment, with 95 % bootstrap intervals; None where it could not be computed."""

    dataset: str
    task: str
    seed: int
    trained: str  # epochs, and how many of them cool down
    way: str
    k: int
    d: float | None
    d_low: float | None
    d_high: float | None
    s: float | None  # alpha fixed, no anomaly used
    s_low: float | None
    s_high: float | None
    s_best: float | None  # alpha chosen on the test points
    alpha_best: float | None
    seconds: float | None


@dataclass(frozen=True)
class Difference:
    """How far one way is above another on the same points; `verdict` is none where the interval holds zero."""

    dataset: str
    task: str
    seed: int
    way: str
    against: str
    term: str  # D, S
    k: int
    difference: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Saved:
    """What an experiment left: NSE and labels of the test points, and each way's distances."""

    experiment: Experiment
    trained: str
    nse: np.ndarray
    held_out_nse: np.ndarray
    abnormal: np.ndarray
    ways: Mapping[str, map_ways.Placed]


def read(experiment: Experiment, folder: Path) -> Saved | None:
    """Return what an experiment saved, None where it has not come so far; DataError names a damaged file."""
    file = folder / "points.npz"
    if not file.exists():
        return None
    names = [*map_ways.WAYS, *map_ways.WITH_ALL]
    ways = {name: map_ways.load(way_file(folder, name)) for name in names if way_file(folder, name).exists()}
    if not ways:
        return None
    parameters, saved = read_parameters(folder), read_arrays(file)
    trained = f"{parameters.epochs} + {parameters.cooldown}"
    return Saved(experiment, trained, saved["test_nse"], saved["held_out_nse"], saved["abnormal"], ways)


def compare(saved: Saved) -> tuple[list[Row], list[Difference]]:
    """Return the figures of one experiment."""
    task = (saved.experiment.dataset, saved.experiment.title, saved.experiment.seed)
    nse = scaled(saved.nse, saved.held_out_nse)
    terms: dict[tuple[str, int, str], np.ndarray] = {}
    for way, placed in saved.ways.items():
        for column, k in enumerate(map_ways.K):
            if k == 1 or way not in map_ways.WITH_ALL:
                terms[way, k, "D"] = placed.test[:, column]
                terms[way, k, "S"] = ALPHA * nse + (1 - ALPHA) * scaled(placed.test[:, column], placed.scale[:, column])
    terms[RECONSTRUCTION, 1, "S"] = nse
    usable = {key: values for key, values in terms.items() if np.isfinite(values).all()}
    samples = dict(zip(usable, bootstrap(list(usable.values()), saved.abnormal), strict=True))
    rows = []
    for way, k in dict.fromkeys((way, k) for way, k, _ in terms):
        d, s = (_figure(terms.get((way, k, term)), saved.abnormal, samples.get((way, k, term))) for term in "DS")
        alpha, best = None, None
        if way in saved.ways:
            alpha, best = best_alpha(saved.nse, saved.ways[way].test[:, map_ways.K.index(k)], saved.abnormal)
        seconds = saved.ways[way].seconds if way in saved.ways else None
        rows.append(Row(*task, saved.trained, way, k, *d, *s, best, alpha, seconds))
    differences = [
        _difference(task, way, against, term, k, terms, samples, saved.abnormal)
        for way, k, term in usable
        for against in AGAINST
        if way != against and (against, k, term) in usable
    ]
    return rows, differences


def scaled(values: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Scale a term by its quantiles on normal points, as a bundle's score does.

    NaN where the quantiles are the same: a map that gives half of the normal points one distance has no such scale.
    """
    try:
        return scorer.scaled(values, calibrate.scale(normal))
    except BundleError:
        return np.full(len(values), np.nan)


def best_alpha(nse: np.ndarray, d: np.ndarray, abnormal: np.ndarray) -> tuple[float, float]:
    """Return the alpha of the paper's grid with the highest AUROC on these points (eq. 2, unscaled), and that AUROC."""
    found = [(float(auroc(a * nse + (1 - a) * d, abnormal)[0]), a) for a in ALPHAS]
    best, alpha = max(found)
    return alpha, best


def _figure(
    values: np.ndarray | None, abnormal: np.ndarray, samples: np.ndarray | None
) -> tuple[float | None, float | None, float | None]:
    if values is None or samples is None:
        return None, None, None
    return float(auroc(values, abnormal)[0]), *interval(samples)


def _difference(
    task: tuple[str, str, int],
    way: str,
    against: str,
    term: str,
    k: int,
    terms: Mapping[tuple[str, int, str], np.ndarray],
    samples: Mapping[tuple[str, int, str], np.ndarray],
    abnormal: np.ndarray,
) -> Difference:
    ours, theirs = (way, k, term), (against, k, term)
    low, high = interval(samples[ours] - samples[theirs])
    found = float(auroc(terms[ours], abnormal)[0] - auroc(terms[theirs], abnormal)[0])
    verdict = "none" if low <= 0 <= high else "above" if found > 0 else "below"
    return Difference(*task, way, against, term, k, found, low, high, verdict)


_R = TypeVar("_R", Row, Difference)


def joined(made: Sequence[_R], before: Sequence[_R], order: Sequence[Experiment]) -> list[_R]:
    """Return the rows made now, and those from before of experiments that were not made now, in order.

    So a table can grow over machines that come and go: what one of them computed stays.
    """
    place = {(one.dataset, one.title, one.seed): number for number, one in enumerate(order)}
    new = {_task(row) for row in made}
    rows = list(made)
    rows += (row for row in before if _task(row) not in new and _task(row) in place)
    return sorted(rows, key=lambda row: place[_task(row)])


def _task(row: Row | Difference) -> tuple[str, str, int]:
    return row.dataset, row.task, row.seed


def markdown(rows: Sequence[Row], figure: str) -> str:
    """Return for each data set a table way x task of one figure (d, s, s_best) at k = 1; of several seeds the mean."""
    datasets = dict.fromkeys(row.dataset for row in rows)
    return "\n\n".join(_of_dataset([row for row in rows if row.dataset == name], name, figure) for name in datasets)


def _of_dataset(rows: Iterable[Row], dataset: str, figure: str) -> str:
    at_one = [row for row in rows if row.k == 1]
    tasks = list(dict.fromkeys(row.task for row in at_one))
    ways = [RECONSTRUCTION, *map_ways.WAYS, *map_ways.WITH_ALL]
    lines = [[dataset, *tasks, "mean"], ["---"] + ["---:"] * (len(tasks) + 1)]
    for way in ways:
        cells = []
        for task in tasks:
            found = [getattr(row, figure) for row in at_one if (row.way, row.task) == (way, task)]
            cells.append(float(np.mean(found)) if found and None not in found else np.nan)
        if not np.isnan(cells).all():  # the mean is empty where a cell is
            shown = ("" if np.isnan(cell) else f"{cell:.3f}".lstrip("0") for cell in [*cells, float(np.mean(cells))])
            lines.append([way, *shown])
    return markdown_table(lines)


def comparison(differences: Sequence[Difference], references: int) -> str:
    """Return how far our placement is above the joint map and above latent neighbours at k = 1, with 95 % intervals.

    references: in the map, where it does not have all.
    """
    at_one = {(_task(one), one.way, one.against, one.term): one for one in differences if one.k == 1}
    lines = [
        [
            "data",
            "task",
            "seed",
            "references",
            *(f"{term} against {against}" for against in (JOINT, LATENT) for term in "DS"),
        ]
    ]
    lines.append(["---", "---", "---:", "---:"] + ["---"] * 4)
    for task in dict.fromkeys(map(_task, differences)):
        for way, plain, held in ((OURS, LATENT, f"{references:,}"), (OURS_ALL, LATENT_ALL, "all")):
            cells = [_said(at_one.get((task, way, against, term))) for against in (JOINT, plain) for term in "DS"]
            lines.append([*map(str, task), held, *cells])
    return markdown_table(lines)


def training(rows: Iterable[Row]) -> str:
    """Return how long each model was trained."""
    lines = ["| data | task | seeds | epochs + cool-down |", "|---|---|---|---|"]
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        seeds = found.setdefault((row.dataset, row.task, row.trained), [])
        if str(row.seed) not in seeds:
            seeds.append(str(row.seed))
    lines += [f"| {dataset} | {task} | {', '.join(seeds)} | {said} |" for (dataset, task, said), seeds in found.items()]
    return "\n".join(lines)


def _said(one: Difference | None) -> str:
    return "" if one is None else f"{one.verdict}: {one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


def alpha_gap(rows: Iterable[Row]) -> str:
    """Return how far the score without labels stays behind the best alpha on the test points, at k = 1, ours."""
    chosen = [row for row in rows if row.way == OURS and row.k == 1 and row.s is not None and row.s_best is not None]
    lines = ["| data | task | seed | alpha fixed | best alpha on the test points | behind by |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    gaps = []
    for row in chosen:
        fixed, best = float(row.s or 0), float(row.s_best or 0)
        gaps.append(best - fixed)
        lines.append(f"| {row.dataset} | {row.task} | {row.seed} | {fixed:.3f} | {best:.3f} | {gaps[-1]:+.3f} |")
    if gaps:
        lines.append(f"| mean | | | | | {float(np.mean(gaps)):+.3f} |")
    return "\n".join(lines)
