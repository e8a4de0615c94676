"""What a cell saved -> rows of AUROC over the paper's alpha grid; rows <-> cells.csv.

The rows are all that tables, heat maps, comparisons and verdicts are made of, so these can be made again anywhere; only
pictures of points (maps, ROC curves, reconstructions) need the run folders.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist

from ecgwatch.errors import ConfigError, DataError
from training.benchmark import map_ways
from training.benchmark.auroc import auroc
from training.benchmark.paper.cells import JOINT, JOINT_Z, WAYS, Examples, done
from training.benchmark.placement import Experiment, way_file
from training.benchmark.placement_tables import ALPHAS, LATENT, scaled
from training.benchmark.rows import converted, read_lines, write_lines
from training.calibrate import ALPHA
from training.run_folder import read_arrays, read_json, read_parameters

PLAIN, PRINTED, PER_PAIR = "plain", "eq. 36 as printed", "eq. 36 with 1/n^2"  # which distance in the map
C = 0.5  # of eq. 35, appendix F
DIGITS = 4  # of an AUROC, from the start: so what is chosen does not depend on whether cells.csv lay between
SAMPLED, THROUGH_MEAN = "sampled z", "mean"  # NSE as in section 3.5, and as served
_ALPHA_COLUMNS = [f"alpha {alpha:g}" for alpha in ALPHAS]


@dataclass(frozen=True)
class Row:
    """AUROC of S (eq. 2) for each alpha of the grid, and with alpha fixed without labels; of one cell, one placing."""

    dataset: str
    split: str
    anomaly: str
    network: str
    beta: float
    share: float  # of the training part
    seed: int
    quick: bool
    placing: str
    k: int
    distance: str
    nse: str
    fixed: float | None  # alpha 1/2 after scaling both terms on held-out normal points (docs/placement.md)
    test: int  # points
    abnormal: int  # of them
    initial: str  # whose the weights before training are like
    precision: str  # of the products in training
    trained: str  # epochs and cool-down
    seconds: float | None  # of training; None where it was trained elsewhere or in pieces
    map_seconds: float | None
    machine: str
    auroc: tuple[float, ...]


class Cell(NamedTuple):
    """What a cell saved.

    nse, held_out_nse: by the way they were reconstructed, SAMPLED or THROUGH_MEAN, of test and held-out points;
    abnormal: bool[m]; kinds: class of each test point; ways: by name; examples: for figure 6.
    """

    experiment: Experiment
    nse: Mapping[str, np.ndarray]
    held_out_nse: Mapping[str, np.ndarray]
    abnormal: np.ndarray
    kinds: np.ndarray
    ways: Mapping[str, map_ways.Placed]
    examples: Examples


def load(experiment: Experiment, folder: Path) -> Cell | None:
    """Return what a cell saved; None where it is not done: half a cell must not stand where a whole one did.

    Raises DataError naming a file that is damaged.
    """
    if not done(folder):
        return None
    points, sampled = read_arrays(folder / "points.npz"), read_arrays(folder / "sampled.npz")
    return Cell(
        experiment,
        {SAMPLED: sampled["test_nse"], THROUGH_MEAN: points["test_nse"]},
        {SAMPLED: sampled["held_out_nse"], THROUGH_MEAN: points["held_out_nse"]},
        points["abnormal"],
        points["kinds"],
        {name: map_ways.load(way_file(folder, name)) for name in (*WAYS, JOINT_Z)},
        Examples(*(sampled[f"examples_{name}"] for name in Examples._fields)),
    )


def rows(cell: Cell, folder: Path) -> list[Row]:
    """Return the figures of a cell; folder: where its parameters and how it was made are said.

    Raises DataError where a score is no number, or a file is damaged.
    """
    one, parameters, made = cell.experiment, read_parameters(folder), {}
    if (folder / "made.json").exists():
        made = read_json(folder / "made.json")
    if not all(np.isfinite(scores).all() for scores in (*cell.nse.values(), *(p.test for p in cell.ways.values()))):
        raise DataError(f"{folder}: NSE or D of a test point is no number, so there are no figures of it")
    what: dict[str, Any] = {
        "dataset": one.dataset,
        "split": parameters.split,
        "anomaly": "".join(one.absent),
        "network": network(one),
        "beta": one.beta,
        "share": one.share,
        "seed": one.seed,
        "quick": one.quick,
        "test": len(cell.abnormal),
        "abnormal": int(cell.abnormal.sum()),
        "initial": parameters.initial,
        "precision": parameters.precision,
        "trained": f"{parameters.epochs} + {parameters.cooldown}",
        "seconds": made.get("seconds"),
        "machine": made.get("machine", ""),
    }
    found = []
    for placing, placed in cell.ways.items():
        for k, distance, nse in _combinations(placing):
            column = map_ways.K.index(k)
            d, errors = placed.test[:, column] / unit(distance, placed), cell.nse[nse]
            fixed = None
            if distance == PLAIN:
                terms = scaled(errors, cell.held_out_nse[nse]), scaled(d, placed.scale[:, column])
                if np.isfinite(np.sum(terms)):
                    fixed = _auroc(ALPHA * terms[0] + (1 - ALPHA) * terms[1], cell.abnormal)
            which: dict[str, Any] = {"placing": placing, "k": k, "distance": distance, "nse": nse}
            found.append(
                Row(
                    **what,
                    **which,
                    fixed=fixed,
                    map_seconds=round(placed.seconds, 1),
                    auroc=over_alpha(errors, d, cell.abnormal),
                )
            )
    return found


def saved_rows(experiment: Experiment, folder: Path) -> list[Row]:
    """Return the figures of a cell from its folder's rows.csv, made once; none where the cell is not done.

    They are made again where the cell or this module is newer, or where another version wrote them: a grid of hundreds
    of cells takes minutes to count.
    """
    if not done(folder):
        return []
    file = folder / "rows.csv"
    newest = max(path.stat().st_mtime for path in (Path(__file__), *folder.glob("*.npz"), *folder.glob("*.json")))
    if file.exists() and file.stat().st_mtime > newest:
        with suppress(ConfigError):
            return read_csv(file)
    cell = load(experiment, folder)
    found = rows(cell, folder) if cell else []
    write_csv(file, found)
    return found


def over_alpha(nse: np.ndarray, d: np.ndarray, abnormal: np.ndarray) -> tuple[float, ...]:
    """Return AUROC of S (eq. 2) for each alpha of the grid; nse, d: float[m], abnormal: bool[m]."""
    return tuple(_auroc(alpha * nse + (1 - alpha) * d, abnormal) for alpha in ALPHAS)


def _auroc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    return round(float(auroc(scores, abnormal)[0]), DIGITS)


def _combinations(placing: str) -> list[tuple[int, str, str]]:
    """Return which k, distance and NSE are looked at; other distances than the plain one in the joint maps alone."""
    chosen = [(k, PLAIN, nse) for k in (map_ways.K if placing != LATENT else (1,)) for nse in (SAMPLED, THROUGH_MEAN)]
    return chosen + [(1, distance, SAMPLED) for distance in (PRINTED, PER_PAIR) if placing in (JOINT, JOINT_Z)]


def network(experiment: Experiment) -> str:
    """Return what a table calls the encoder."""
    return experiment.encoder if experiment.dataset == "arrhythmia" else "table 3"


def unit(distance: str, placed: map_ways.Placed) -> float:
    """Return what D is divided by: c times eq. 36, the distances between references summed over n or over n^2."""
    if distance == PLAIN:
        return 1.0
    n = len(placed.among)
    total = 2 * float(pdist(placed.among.astype(np.float64)).sum())
    return C * total / (n if distance == PRINTED else n**2)


def write_csv(file: Path, found: Sequence[Row]) -> None:
    """Write rows."""
    names = [field.name for field in fields(Row) if field.name != "auroc"]

    def line(row: Row) -> list[object]:
        said = ["" if value is None else value for value in (getattr(row, name) for name in names)]
        if row.fixed is not None:
            said[names.index("fixed")] = f"{row.fixed:.{DIGITS}f}"
        return [*said, *(f"{value:.{DIGITS}f}" for value in row.auroc)]

    write_lines(file, [*names, *_ALPHA_COLUMNS], map(line, found))


def read_csv(file: Path) -> list[Row]:
    """Return the rows that `write_csv` wrote; none where there is no file.

    Raises ConfigError naming file and line where one is not such a row.
    """

    def values(line: dict[str, Any]) -> dict[str, Any]:
        strings = ("trained", "machine", "anomaly")
        made = {name: value if name in strings else value or None for name, value in line.items()}
        return made | {"quick": line.get("quick") == "True", "auroc": [line.get(name) for name in _ALPHA_COLUMNS]}

    return converted(file, map(values, read_lines(file)), Row)


def joined(made: Sequence[Row], before: Iterable[Row], order: Sequence[Experiment]) -> list[Row]:
    """Return the rows made now, and those from before of cells that were not made now, in the grid's order.

    So the tables grow over machines that come and go.
    """
    new = {cell_of(row) for row in made}
    kept = [row for row in before if cell_of(row) not in new]
    place = {named(one): number for number, one in enumerate(order)}
    return sorted([*made, *kept], key=lambda row: place.get(cell_of(row), len(place)))


def named(one: Experiment) -> tuple[Any, ...]:
    """Return what tells a cell from others, as `cell_of` does of its rows."""
    return one.dataset, one.split_name, "".join(one.absent), network(one), one.beta, one.share, one.seed, one.quick


def cell_of(row: Row) -> tuple[Any, ...]:
    """Return which cell a row is of."""
    return row.dataset, row.split, row.anomaly, row.network, row.beta, row.share, row.seed, row.quick
