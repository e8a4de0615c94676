"""What the paper leaves open, varied: which choice moves the AUROC of reconstruction alone.

    ecgwatch benchmark reconstruction --dataset mnist --anomaly 1 --set latent=5 epochs=5

Reconstruction alone needs no map, so it is the cleanest figure to compare with the paper (table 1). A mean of the
squared error over the pixels in the place of the sum, the other reading of the likelihood, is the same as a beta that
is larger by their number: Adam does not see the scale of a loss.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.benchmark.auroc import auroc
from training.benchmark.paper.cells import sample
from training.benchmark.rows import read_csv, write_csv
from training.datasets.read import read
from training.models import encoded
from training.parameters import CLASSES, Parameters, defaults
from training.train import fit

VARIED = ("initial", "latent", "beta", "capacity", "epochs", "cooldown", "seed")
ASKED = ("dataset", "anomaly", *VARIED)  # what a row is told by


@dataclass(frozen=True)
class Row:
    """AUROC of NSE on all test points, through a sampled z and through the mean, beside what was trained.

    normal, abnormal: mean NSE of the test points, through a sampled z.
    """

    dataset: str
    anomaly: str
    initial: str
    latent: int
    beta: float
    capacity: float
    epochs: int
    cooldown: int
    seed: int
    sampled: float
    through_mean: float
    normal: float
    abnormal: float


def wanted(dataset: str, anomaly: str) -> Parameters:
    """Return what a model of a data set is trained with where nothing else is asked for, one class absent."""
    normal = tuple(kind for kind in CLASSES[dataset] if kind != anomaly)
    return replace(defaults(dataset, "by-beat"), normal=normal)


def run(parameters: Parameters, directory: Path, file: Path, on: torch.device) -> Row:
    """Train, measure and append a row, unless the CSV file holds it; directory: the data directory."""
    rows = read_csv(file, Row)
    found = [row for row in rows if _key(row) == _asked(parameters)]
    if not found:
        found = [_measure(parameters, directory, on)]
        write_csv(file, sorted([*rows, *found], key=_key))
    return found[0]


def _measure(parameters: Parameters, directory: Path, on: torch.device) -> Row:
    _, inputs, split = read(parameters, directory)
    with tempfile.TemporaryDirectory() as folder:
        model = fit(inputs.training(split.train), inputs.x[split.calibration], parameters, Path(folder), on)
    abnormal = ~np.isin(inputs.classes[split.test], parameters.normal)
    x = inputs.x[split.test]
    sampled = sample(model, x, torch.Generator().manual_seed(parameters.seed)).nse
    _, through_mean = encoded(model, x)
    return Row(
        **dict(zip(ASKED, _asked(parameters), strict=True)),
        sampled=float(auroc(sampled, abnormal)[0]),
        through_mean=float(auroc(through_mean, abnormal)[0]),
        normal=float(sampled[~abnormal].mean()),
        abnormal=float(sampled[abnormal].mean()),
    )


def _asked(parameters: Parameters) -> tuple[Any, ...]:
    absent = "".join(kind for kind in CLASSES[parameters.dataset] if kind not in parameters.normal)
    return parameters.dataset, absent, *(getattr(parameters, name) for name in VARIED)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in ASKED)
