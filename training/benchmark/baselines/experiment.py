"""Every method on every anomaly: what is missing is computed, and each row is kept as soon as it is there.

    ecgwatch benchmark baselines --runs DIR     # goes on where it was stopped

A method with settings is tuned once, in the same way as all others: each of at most three settings is fitted to 10,000
training points of one task, and the one is kept that best tells held-out normal beats from abnormal beats of the
training part. Neither are test beats, but the choice uses labels. Some of ours were settled with test beats in view
(docs/training.md).
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.benchmark.auroc import auroc
from training.benchmark.baselines import EPOCHS, saved_run
from training.benchmark.baselines.methods import METHODS, Method
from training.benchmark.baselines.points import Points, Scored, subsample
from training.benchmark.placement import HELD_OUT, Experiment, choose_test
from training.benchmark.rows import read_csv, write_csv
from training.datasets import arrhythmia
from training.datasets.dataset import Dataset, Split, SplitName
from training.parameters import CLASSES
from training.run_folder import processor

DATASET = "arrhythmia"
SPLIT: SplitName = "by-beat"
ANOMALIES = tuple(CLASSES[DATASET])
TUNED_ON = "V"
TUNING_POINTS = 10_000
UNVERIFIED = "unverified"
UNVERIFIED_BY_ANOTHER = f"{UNVERIFIED} by another class"  # its own curve has converged
DIGITS = ".6g"


@dataclass(frozen=True)
class Row:
    """AUROC of a method over all test points; None where it was not computed.

    converged: "yes", UNVERIFIED or UNVERIFIED_BY_ANOTHER (`judged`) for what was trained, by the loss curves; None for
    what was not.
    """

    dataset: str
    split: str
    anomaly: str
    method: str
    seed: int
    auroc: float | None = None
    train_points: int | None = None
    test_points: int | None = None
    seconds: float | None = None
    converged: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Tuning:
    """AUROC of one setting on the tuning points."""

    method: str
    knob: str
    setting: float
    auroc: float
    seconds: float


@dataclass(frozen=True)
class Loss:
    """A loss on held-out points after an epoch."""

    anomaly: str
    method: str
    seed: int
    stage: str
    epoch: int
    loss: float


@dataclass(frozen=True, eq=False)  # hashed as itself, for the caches
class Source:
    """Where points come from: all beats, and the folder of the trained runs.

    epochs: of what is trained here; most: on how many points at most, drawn from all; None: on all.
    """

    beats: Dataset
    folder: Path
    epochs: int = EPOCHS
    most: int | None = None

    def split(self, anomaly: str) -> Split:
        """Return the paper's split by beat; as in the release every normal beat trains."""
        return arrhythmia.split(self.beats, SPLIT, _normal(anomaly), keep_mixed_windows=True)

    def run_folder(self, anomaly: str, seed: int) -> Path:
        """Return where the beta-VAE of a task lies."""
        return self.folder / Experiment(DATASET, _normal(anomaly), seed).name

    def has_more(self, row: Row) -> bool:
        """Tell whether a row was trained on fewer points than it would be now."""
        if not METHODS[row.method].trained:
            return False
        there = len(self.split(row.anomaly).train)
        return (row.train_points or 0) < min(there, there if self.most is None else self.most)

    @cache  # noqa: B019 - one source lives as long as the command
    def run(self, anomaly: str, seed: int) -> saved_run.Run:
        """Return the beta-VAE of a task."""
        split = self.split(anomaly)
        abnormal = self.beats.classes[split.test] == anomaly
        known = self.beats.x[split.test[choose_test(abnormal, seed)]]
        return saved_run.load(self.run_folder(anomaly, seed), known, len(split.train))

    @cache  # noqa: B019
    def points(self, anomaly: str, seed: int, from_run: bool) -> tuple[Points, np.ndarray]:
        """Return the points of a task and which test points are abnormal, bool[m]."""
        split, x = self.split(anomaly), self.beats.x
        held_out = np.random.default_rng(seed).permutation(split.calibration)[:HELD_OUT]
        points = Points(x[split.train], x[held_out], x[split.test], seed, self.epochs)
        if from_run:
            points = replace(points, encoded=self.run(anomaly, seed).encoded(points.test))
        return points, self.beats.classes[split.test] == anomaly

    @cache  # noqa: B019
    def tuning_points(self, run: int | None) -> tuple[Points, np.ndarray]:
        """Return the points that settings are chosen on, of which those tested are no test beats.

        run: the seed of the beta-VAE that they are encoded by; None: of none.
        """
        split, x = self.split(TUNED_ON), self.beats.x
        calibration = np.random.default_rng(0).permutation(split.calibration)
        half = min(HELD_OUT, len(calibration) // 2)
        used = np.concatenate([split.train, split.calibration, split.test])
        abnormal = np.setdiff1d(np.flatnonzero(self.beats.classes == TUNED_ON), used)
        tested = np.concatenate([calibration[half : 2 * half], subsample(abnormal, HELD_OUT, 0)])
        drawn = subsample(np.arange(len(split.train)), TUNING_POINTS, 0)
        points = Points(x[split.train[drawn]], x[calibration[:half]], x[tested], 0, self.epochs)
        if run is not None:
            points = replace(points, encoded=self.run(TUNED_ON, run).encoded(points.test, drawn))
        return points, self.beats.classes[tested] == TUNED_ON


def _normal(anomaly: str) -> tuple[str, ...]:
    return tuple(one for one in ANOMALIES if one != anomaly)


def run(
    source: Source, out: Path, names: Sequence[str], anomalies: Sequence[str], seeds: Sequence[int], minutes: float
) -> list[Row]:
    """Compute the rows that are missing in `out`, and return all; none is begun after so many minutes."""
    start = time.monotonic()
    rows = ordered(read_csv(out / "baselines.csv", Row))
    done = {_key(row) for row in rows if row.auroc is not None and not source.has_more(row)}
    tasks = [(name, anomaly, seed) for name in names for seed in seeds for anomaly in anomalies]
    missing = [task for task in tasks if task not in done]
    for name, anomaly, seed in tqdm(missing, desc="baselines", unit="row"):
        if time.monotonic() - start > 60 * minutes:
            break
        row, losses = _row(source, out, name, anomaly, seed)
        kept = [one for one in read_csv(out / "baselines-curves.csv", Loss) if _key(one) != _key(row)]
        if kept or losses:
            write_csv(out / "baselines-curves.csv", [*kept, *losses], DIGITS)
        rows = ordered([*(one for one in rows if _key(one) != _key(row)), row])
        write_csv(out / "baselines.csv", rows, DIGITS)
    return rows


def _row(source: Source, out: Path, name: str, anomaly: str, seed: int) -> tuple[Row, list[Loss]]:
    method, row = METHODS[name], Row(DATASET, SPLIT, anomaly, name, seed)
    needed = [source.run_folder(anomaly, seed)] if method.from_run else []
    if method.from_run and len(method.settings) > 1:
        needed.append(source.run_folder(TUNED_ON, seed))
    absent = [one.name for one in needed if not saved_run.is_whole(one)]
    if absent:
        return replace(row, note=f"missing: no trained run {absent[0]}"), []
    setting = _setting(source, out, name, method, seed)
    points, abnormal = source.points(anomaly, seed, method.from_run)
    there = len(points.train)
    if method.trained and source.most is not None:
        points = replace(points, train=subsample(points.train, source.most, seed))
    start = time.perf_counter()
    scored = method.score(points, setting)
    said = [f"{method.knob} {setting:g}"] if method.knob else []
    said += [scored.note] if scored.note else []
    if len(points.train) < there:
        said.append(f"shortened: {len(points.train):,} drawn of {there:,} training points")
    if scored.curves:
        said.append(f"{max(map(len, scored.curves.values()))} epochs")
    found = replace(
        row,
        auroc=round(float(auroc(scored.scores, abnormal)[0]), 6),
        train_points=scored.train_points,
        test_points=len(abnormal),
        seconds=round(time.perf_counter() - start, 1),
        converged=_verdict(scored),
        note="; ".join([*said, machine()]),
    )
    return found, [
        Loss(anomaly, name, seed, stage, epoch, float(loss))
        for stage, curve in scored.curves.items()
        if not method.from_run  # a run keeps its own
        for epoch, loss in enumerate(curve, 1)
    ]


def _verdict(scored: Scored) -> str | None:
    if not scored.curves:
        return None
    return "yes" if scored.converged else UNVERIFIED


def _setting(source: Source, out: Path, name: str, method: Method, seed: int) -> float:
    """Return the setting that is best on the tuning points; each is tried once, and kept; seed: of the run it needs."""
    if len(method.settings) == 1:
        return method.settings[0]
    file = out / "baselines-tuning.csv"
    kept = read_csv(file, Tuning)
    found = {one.setting: one.auroc for one in kept if one.method == name}
    for setting in (one for one in method.settings if one not in found):
        points, abnormal = source.tuning_points(seed if method.from_run else None)
        start = time.perf_counter()
        found[setting] = float(auroc(method.score(points, setting).scores, abnormal)[0])
        kept.append(Tuning(name, method.knob, setting, found[setting], round(time.perf_counter() - start, 1)))
        write_csv(file, kept, DIGITS)
    return max(method.settings, key=lambda one: found[one])


def machine() -> str:
    """Return date, processor and cores."""
    return f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, one thread of {os.cpu_count()} cores"


def _key(one: Row | Loss) -> tuple[str, str, int]:
    return one.method, one.anomaly, one.seed


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that can be computed here, judged, in the order of the methods; no published figures."""
    names = list(METHODS)
    known = judged([row for row in rows if row.method in METHODS])
    return sorted(known, key=lambda row: (names.index(row.method), row.seed, ANOMALIES.index(row.anomaly)))


def judged(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, UNVERIFIED_BY_ANOTHER where a curve has converged and another class of the method has not.

    A curve that looks flat says little beside others of the same training that are not.
    """
    doubted = {row.method for row in rows if row.converged == UNVERIFIED}
    return [
        replace(row, converged=UNVERIFIED_BY_ANOTHER if row.method in doubted else "yes")
        if row.converged in ("yes", UNVERIFIED_BY_ANOTHER)
        else row
        for row in rows
    ]
