"""Cross-validation over DS1's patients: how settings of the default model are chosen; DS2 has no part in it.

    ecgwatch benchmark folds --set filters=32 denoise=0     # appends a row to docs/strangers/folds.csv

Four folds of patients. Of each fold a model is trained on the normal beats of the other folds' patients, which also
give the map its references; the held-out patients' beats after the first five minutes are scored. A row holds the AUROC
of all folds' beats together, N against the rest, beside what was tried.
"""

import csv
import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ecgwatch.beats import Bedside, bedside_parts
from ecgwatch.errors import ConfigError
from ecgwatch.scorer import Model
from training import export, reference_map
from training.benchmark.auroc import auroc
from training.benchmark.placement_tables import scaled
from training.calibrate import ALPHA
from training.datasets import arrhythmia
from training.datasets.dataset import Dataset
from training.evaluate import hours_of_normal_rhythm
from training.parameters import BEDSIDE, NUMBERS, Initial, Parameters
from training.train import fit

FOLDS = 4
TARGET, FACTOR = 10.0, 3.0  # false alerts per hour: the default's, and what is taken to be near it


@dataclass(frozen=True)
class Row:
    """AUROC of a candidate's terms; of S also by class against N, its median over patients and the lowest of them.

    false_alerts: per hour of normal rhythm, at the threshold that gives TARGET on the other folds' patients; at_most:
    how many patients have at most three times as many.
    energy: of what the input deviates from the typical beat and the rhythm, a score that needs no training.
    """

    nse: float
    d: float
    s: float
    s_of_s: float
    s_of_v: float
    s_of_f: float
    median: float
    lowest: float
    energy: float
    false_alerts: float
    at_most: int


def candidate(given: Sequence[str], base: Parameters = BEDSIDE, allowed: Sequence[str] = NUMBERS) -> Parameters:
    """Return the default's (or other) parameters with those of `given`, name=value, in their place.

    Raises ConfigError for a name that is not allowed, or a value that is no number or none of the words there are.
    """
    values = {}
    for one in given:
        name, _, value = one.partition("=")
        if name not in allowed:
            raise ConfigError(f"--set {one}: what can be tried is {', '.join(allowed)}")
        try:
            values[name] = type(getattr(base, name))(value)
        except ValueError:
            raise ConfigError(f"--set {one}: not a value of {name}") from None
        least = 1 if name in ("latent", "filters", "epochs", "references", "peers") else 0
        if name != "initial" and not least <= values[name] < math.inf:
            raise ConfigError(f"--set {one}: must be {least} or above")
        if name == "initial" and value not in get_args(Initial):
            raise ConfigError(f"--set {one}: must be {' or '.join(get_args(Initial))}")
    return replace(base, **values)


def run(parameters: Parameters, directory: Path, file: Path, jobs: int) -> None:
    """Cross-validate a candidate, unless the CSV file holds it, and append its row; directory: the data directory."""
    if key(parameters) in _done(file):
        print(f"{file} holds it")
        return
    beats = arrhythmia.load(directory / "mitdb", Bedside(), ["N"], arrhythmia.ELIGIBLE_DS1)
    row = asdict(cross_validate(parameters, beats, jobs))
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if new:
            writer.writerow([*NUMBERS, *row])
        writer.writerow([*key(parameters), *(f"{value:.4f}" for value in row.values())])
    print(", ".join(f"{name} {value:.4f}" for name, value in row.items()))


def cross_validate(parameters: Parameters, beats: Dataset, jobs: int = 1) -> Row:
    """Return a candidate's figures; beats: bedside inputs of DS1's patients."""
    patients = np.unique(beats.records)
    held_out = [np.isin(beats.records, patients[start::FOLDS]) for start in range(FOLDS)]
    terms = np.empty((3, len(beats)))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for rows, found in zip(held_out, pool.map(_fold, [parameters] * FOLDS, [beats] * FOLDS, held_out), strict=True):
            terms[:, rows] = found
    nse, d, s = terms
    abnormal = beats.classes != "N"

    def figure(score: np.ndarray, rows: np.ndarray) -> float:
        both = 0 < abnormal[rows].sum() < rows.sum()
        return float(auroc(score[rows], abnormal[rows])[0]) if both else float("nan")

    every = np.ones(len(beats), bool)
    by_class = {kind: figure(s, np.isin(beats.classes, ["N", kind])) for kind in "SVF"}
    of_patients = [beats.records == one for one in patients]
    each = [figure(s, rows) for rows in of_patients if 0 < abnormal[rows].sum() < rows.sum()]
    alerts, hours = _false_alerts(s, beats, held_out, patients)
    beat, typical, rhythm = bedside_parts(beats.x)
    energy = np.square(beat - typical).sum(axis=1) + np.square(rhythm).sum(axis=1)
    return Row(
        nse=figure(nse, every),
        d=figure(d, every),
        s=figure(s, every),
        s_of_s=by_class["S"],
        s_of_v=by_class["V"],
        s_of_f=by_class["F"],
        median=float(np.median(each)),
        lowest=min(each),
        energy=figure(energy, every),
        false_alerts=float(alerts.sum() / hours.sum()),
        at_most=int((alerts <= FACTOR * TARGET * hours).sum()),
    )


def _false_alerts(
    s: np.ndarray, beats: Dataset, held_out: Sequence[np.ndarray], patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each patient's false alerts and hours of normal rhythm, float64[patients]."""
    normal = beats.classes == "N"
    each = [beats.records == one for one in patients]
    of_patient = hours_of_normal_rhythm(beats.records, normal, beats.hours)
    hours = np.array([of_patient[one] for one in patients.tolist()])
    alerts = np.zeros(len(patients))
    for start, fold in enumerate(held_out):
        others = np.delete(np.arange(len(patients)), np.s_[start::FOLDS])
        ranked = np.sort(s[normal & ~fold])[::-1]
        threshold = ranked[min(round(TARGET * hours[others].sum()), len(ranked) - 1)]
        for number in range(start, len(patients), FOLDS):
            alerts[number] = (s[each[number] & normal] > threshold).sum()
    return alerts, hours


def _fold(parameters: Parameters, beats: Dataset, held_out: np.ndarray) -> np.ndarray:
    """NSE, D and S of the held-out patients' beats, float64[3, n]; scaled by the normal ones among them."""
    torch.set_num_threads(1)
    normal = beats.classes == "N"
    train, scales = np.flatnonzero(~held_out & normal & beats.clean), np.flatnonzero(held_out & normal)
    with tempfile.TemporaryDirectory() as folder:
        return train_and_score(parameters, beats, train, scales, np.flatnonzero(held_out), Path(folder))


def train_and_score(
    parameters: Parameters, beats: Dataset, train: np.ndarray, scales: np.ndarray, tested: np.ndarray, folder: Path
) -> np.ndarray:
    """Train a model and map its references; return NSE, D and S of beats, float64[3, len(tested)].

    train, scales, tested: positions of the normal beats that train, of those that set the scales of S, of what is
    scored. folder: of the training's checkpoint.
    """
    model = fit(beats.x[train], beats.x[train[::10]], parameters, folder, torch.device("cpu"))
    encoder = Model(export.to_onnx(model, beats.x.shape[1]), "cpu", 1)
    chosen = train[reference_map.choose(beats.records[train], parameters.references, parameters.seed)]
    the_map = reference_map.undrawn(encoder.run(beats.x[chosen])[0], parameters.perplexity, parameters.peers)

    def terms(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        latents, nse = encoder.run(beats.x[rows])
        return nse.astype(float), the_map.distance(latents)

    (nse, distance), (usual_nse, usual_distance) = terms(tested), terms(scales)
    far = np.inf if parameters.most_distance is None else parameters.most_distance
    s = ALPHA * scaled(nse, usual_nse) + (1 - ALPHA) * np.minimum(scaled(distance, usual_distance), far)
    return np.stack([nse, distance, s])


def key(parameters: Parameters) -> tuple[str, ...]:
    """Return what a row is told by: the values of NUMBERS."""
    return tuple(f"{getattr(parameters, name):g}" for name in NUMBERS)


def _done(file: Path) -> set[tuple[str, ...]]:
    if not file.exists():
        return set()
    with file.open(encoding="utf-8") as opened:
        return {tuple(row[: len(NUMBERS)]) for row in csv.reader(opened)}
