"""How the joint map's figure depends on how many anomalies arrive together, beside a frozen map's, which cannot.

Anomalies in one map are each other's neighbours and make islands of their own; a single one has only normal points to
lie among. A draw takes some references, some normal test points and `count` anomalies; both ways score the same points.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.benchmark import map_ways
from training.benchmark.auroc import auroc
from training.benchmark.rows import read_csv
from training.run_folder import read_arrays

COUNTS = (1000, 100, 10, 1)  # fewer anomalies, more draws
REFERENCES = NORMAL = 500
ENOUGH = 0.01  # standard error of the mean over draws
LEAST_DRAWS, MOST_DRAWS = 5, 1500


@dataclass(frozen=True)
class Draw:
    """AUROC of D (k = 1) in one draw: the joint map's and the frozen map's."""

    count: int
    number: int
    joint: float
    frozen: float


def run(folder: Path, seed: int, counts: tuple[int, ...] = COUNTS) -> list[Draw]:
    """Draw until both means are known well enough; each draw is written to `crowd.csv` when it is made."""
    file = folder / "crowd.csv"
    made = read_csv(file, Draw)
    saved = read_arrays(folder / "points.npz")
    references = saved["train_latents"][saved["references"]]
    test, abnormal, perplexity = saved["test_latents"], saved["abnormal"], float(saved["perplexity"])
    for count in (one for one in counts if one <= abnormal.sum()):
        of_count = [one for one in made if one.count == count]
        while not enough(of_count):
            one = draw(references, test, abnormal, perplexity, count, len(of_count), seed)
            of_count.append(one)
            made.append(one)
            _append(file, one)
    return made


def draw(
    references: np.ndarray,
    test: np.ndarray,
    abnormal: np.ndarray,
    perplexity: float,
    count: int,
    number: int,
    seed: int,
) -> Draw:
    """Make one draw; it depends on (seed, count, number) alone."""
    rng = np.random.default_rng([seed, count, number])
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(~abnormal))[:NORMAL], rng.permutation(np.flatnonzero(abnormal))[:count]]
    )
    among = references[rng.permutation(len(references))[:REFERENCES]]
    points = map_ways.Points(among, among[:1], test[chosen], perplexity, number)
    joint, frozen = (way(points).test[:, 0] for way in (map_ways.joint, map_ways.affinity))
    return Draw(count, number, *(float(auroc(d, abnormal[chosen])[0]) for d in (joint, frozen)))


def enough(draws: list[Draw]) -> bool:
    """Tell whether the means are known to ENOUGH, or the draws are as many as are made at most."""
    if len(draws) < LEAST_DRAWS:
        return False
    errors = (standard_error([getattr(one, way) for one in draws]) for way in ("joint", "frozen"))
    return len(draws) >= MOST_DRAWS or max(errors) <= ENOUGH


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def table(draws: list[Draw]) -> str:
    """Return the means over draws as a Markdown table, with their standard errors."""
    lines = ["| anomalies among the test points | draws | joint map | frozen map |", "|---:|---:|---:|---:|"]
    for count in sorted({one.count for one in draws}):
        of_count = [one for one in draws if one.count == count]
        cells = []
        for way in ("joint", "frozen"):
            values = [getattr(one, way) for one in of_count]
            cells.append(f"{np.mean(values):.3f} ± {standard_error(values):.3f}" if len(values) > 1 else "")
        lines.append(f"| {count:,} | {len(of_count)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _append(file: Path, one: Draw) -> None:
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if new:
            writer.writerow(Draw.__dataclass_fields__)
        writer.writerow([one.count, one.number, f"{one.joint:.6f}", f"{one.frozen:.6f}"])
