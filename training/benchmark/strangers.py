"""Patients never seen: what the runs of the default model say of DS2, beside what needs no training.

Everything on the same beats: those of DS2 after the first 5 minutes that every row can score. Intervals: the patients
are drawn again, not the beats, since beats of one patient are alike. Nothing here chooses anything; each run of it is a
look at DS2, and docs/strangers.md lists the looks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import poisson
from sklearn.metrics import roc_curve

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside, Contract, bedside_parts
from ecgwatch.bundle import Bundle
from ecgwatch.errors import ConfigError
from ecgwatch.records import read_wfdb
from ecgwatch.scorer import Model
from training import evaluate, floor
from training.benchmark import pictures
from training.benchmark.auroc import auroc, interval
from training.benchmark.rows import write_lines
from training.datasets import arrhythmia
from training.datasets.arrhythmia import DS2, ELIGIBLE_DS1, SICK_SINUS
from training.datasets.dataset import Dataset
from training.text import markdown_table

PROTOCOL = """Written by `ecgwatch benchmark strangers`; docs/strangers.md says what it means. Trained on normal beats
of DS1, scaled by normal beats of DS1 patients that the scaling model had not seen, tested on DS2 (de Chazal; 201 left
out), lead MLII where there is one, annotated R peaks, beats after the first 5 minutes, class N against the rest, AUROC.
S, V, F: that class against N, without record 232. In brackets: 95 % interval over patients drawn again, first seed."""
SAMPLES = 300
COLUMNS = ("all", "without 232", "S", "V", "F", "median over records")
EXAMPLES = 8  # records drawn
FACTOR = 3  # of a target, within which a record's false alerts are to be
RATE = 10.0  # target of the threshold that tells found from missed, false alerts per hour: the default
TWO_NUMBERS = "the input's own two numbers, no training"
FLOOR = "floor: residual and prematurity, no training"
_BLOCK = 20  # bootstrap samples at once


@dataclass(frozen=True)
class Beats:
    """The beats of a comparison; classes: AAMI, '<U1'[n]; records: str[n]; samples: int64[n], R."""

    classes: np.ndarray
    records: np.ndarray
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def mask(self, column: str) -> np.ndarray:
        """Return which beats a column is taken over, bool[n]."""
        without = self.records != SICK_SINUS
        if column in "SVF":
            return without & np.isin(self.classes, ["N", column])
        return without if column == "without 232" else np.ones(len(self), bool)


@dataclass(frozen=True)
class Cell:
    """AUROC of one score over one column; of several seeds the mean, with the lowest and highest.

    lower, upper: 95 % interval over patients, of the first seed.
    """

    score: str
    column: str
    seeds: int
    auroc: float
    lowest: float
    highest: float
    lower: float
    upper: float


Scores = Mapping[str, Sequence[np.ndarray]]  # by name, of each seed float64[n]


def table(beats: Beats, scores: Scores) -> list[Cell]:
    """Return the cells of all scores."""
    return [cell for name, seeds in scores.items() for cell in _cells(beats, name, seeds)]


def _cells(beats: Beats, name: str, seeds: Sequence[np.ndarray]) -> Iterator[Cell]:
    for column in COLUMNS:
        values = [figure(beats, one, column) for one in seeds]
        low, high = interval(over_patients(beats, seeds[0], column))
        yield Cell(name, column, len(values), float(np.mean(values)), min(values), max(values), low, high)


def figure(beats: Beats, score: np.ndarray, column: str) -> float:
    """Return AUROC over a column's beats together, or the median of the records'."""
    if column == COLUMNS[-1]:
        return float(np.median(list(of_records(beats, score).values())))
    rows = beats.mask(column)
    return float(auroc(score[rows], beats.classes[rows] != "N")[0])


def of_records(beats: Beats, score: np.ndarray) -> dict[str, float]:
    """Return AUROC within each record that has normal and abnormal beats."""
    found = {}
    for record in np.unique(beats.records).tolist():
        rows = beats.records == record
        abnormal = beats.classes[rows] != "N"
        if 0 < abnormal.sum() < len(abnormal):
            found[record] = float(auroc(score[rows], abnormal)[0])
    return found


def over_patients(beats: Beats, score: np.ndarray, column: str, samples: int = SAMPLES) -> np.ndarray:
    """AUROC with the patients drawn again, float64[at most samples]; draws without an abnormal beat are left out.

    Scores of the same beats get the same draws, so that their differences are paired.
    """
    rng = np.random.default_rng(0)
    if column == COLUMNS[-1]:
        each = np.array(list(of_records(beats, score).values()))
        return np.median(rng.choice(each, (samples, len(each))), axis=1)
    rows = beats.mask(column)
    names, owner = np.unique(beats.records[rows], return_inverse=True)
    abnormal = beats.classes[rows] != "N"
    found = []
    for _ in range(samples // _BLOCK):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), _BLOCK)[:, owner]
        usable = (drawn[:, abnormal].sum(axis=1) > 0) & (drawn[:, ~abnormal].sum(axis=1) > 0)
        found.append(auroc(score[rows], abnormal, drawn[usable]))
    return np.concatenate(found)


def gather(runs: Sequence[Bundle], data: Dataset, folder: Path, segment: Bundle | None) -> tuple[Beats, Scores]:
    """Score DS2 in every way, and keep the beats that all can score.

    runs: a bundle of each seed; data: bedside inputs of DS1 and DS2; folder: the WFDB records; segment: a bundle of the
    paper's contract.
    """
    test = np.flatnonzero(np.isin(data.records, DS2))
    reference = np.flatnonzero(np.isin(data.records, ELIGIBLE_DS1) & (data.classes == "N"))
    predictions = [evaluate.predict(bundle, data, test, ("N",)) for bundle in runs]
    scores = {
        "S": [one.score for one in predictions],
        "NSE alone": [one.nse for one in predictions],
        "D alone": [one.distance for one in predictions],
        "nearest reference among the latents": [_latent(bundle, data.x[test]) for bundle in runs],
        TWO_NUMBERS: [_two_numbers(data.x[test], data.x[reference])],
    }
    places = [_places(data.records[test], data.samples[test])]
    measured = [floor.measure(read_wfdb(folder / name)) for name in DS2]
    of_floor = floor.floor_scores(measured, [floor.measure(read_wfdb(folder / name)) for name in ELIGIBLE_DS1])
    named = np.repeat([one.name for one in measured], [len(one.classes) for one in measured])
    places.append(_places(named, np.concatenate([one.samples for one in measured])))
    late = {FLOOR: [np.concatenate(of_floor["both"])]}
    papers = {}
    if segment is not None:
        contract = segment.manifest.contract
        if not isinstance(contract, Contract):
            raise ConfigError(f"--segment {segment.manifest.name}: not a bundle of the paper's segment")
        beats = arrhythmia.load(folder, contract, ["N"], DS2)
        papers = {
            "S of the paper's segment": [evaluate.predict(segment, beats, np.arange(len(beats)), ("N",)).score],
        }
        places.append(_places(beats.records, beats.samples))
    common = places[0]
    for other in places[1:]:
        common = np.intersect1d(common, other)
    joined = {
        name: [one[np.isin(where, common)] for one in seeds]
        for where, group in zip(places, (scores, late, papers), strict=False)
        for name, seeds in group.items()
    }
    kept = test[np.isin(places[0], common)]
    return Beats(data.classes[kept], data.records[kept], data.samples[kept]), joined


def _places(records: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """One number for each beat of a record of DS1 or DS2, int64[n]."""
    order = {name: number for number, name in enumerate((*DS2, *ELIGIBLE_DS1))}
    return np.array([order[str(name)] for name in records], np.int64) * 10_000_000 + samples


def _latent(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    (latents,) = Model(bundle.model, "cpu", 0, ("mean",)).run(x)
    return np.sqrt(bundle.map.nearest(latents, 1).min(axis=1))


def _two_numbers(x: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Tail probability of the deviation and half that of prematurity, as the floor, from the bedside input."""
    numbers = []
    for one in (x, normal):
        beat, typical, rhythm = bedside_parts(one)
        numbers.append((np.square(beat - typical).mean(axis=1), -rhythm[:, 0]))
    (deviation, early), (usual_deviation, usual_early) = numbers
    return floor.surprise(deviation, usual_deviation) + floor.surprise(early, usual_early) / 2


def markdown(cells: Sequence[Cell]) -> str:
    """Return the table of cells."""
    lines = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    for name in dict.fromkeys(cell.score for cell in cells):
        of_name = {cell.column: cell for cell in cells if cell.score == name}
        seeds = next(iter(of_name.values())).seeds
        lines.append([name + (f" (mean of {seeds})" if seeds > 1 else ""), *(_said(of_name[c]) for c in COLUMNS)])
    return markdown_table(lines)


def _said(cell: Cell) -> str:
    spread = f", {cell.lowest:.3f} to {cell.highest:.3f}" if cell.seeds > 1 else ""
    return f"**{cell.auroc:.3f}**{spread} [{cell.lower:.2f}, {cell.upper:.2f}]"


def one_scale(alerts: Sequence[Mapping[str, Any]], hours: Mapping[str, float]) -> str:
    """Return a table of how near the records' false alerts come to each target.

    alerts: of a bundle's figures; hours: of normal rhythm, by record. The last column is what a perfect scale would
    have, whose false alerts come at the target's rate and by chance: a record of 25 minutes has whole alerts, and at 2
    an hour none of them is as far from the target as three.
    """
    lines = [
        ["target, false alerts per hour", "realised, all records", "median record", f"within a factor of {FACTOR}"]
    ]
    lines[0] += [f"at most {FACTOR} times", f"within a factor of {FACTOR}, had the scale been perfect"]
    lines.append(["---:"] * len(lines[0]))
    for one in alerts:
        target, found = one["target_per_hour"], one["false_alerts_per_hour_by_record"]
        rates = np.array([found[name] for name in hours])
        low, high = target / FACTOR, target * FACTOR
        of_perfect = sum(_within(low * length, high * length, target * length) for length in hours.values())
        counts = [((rates >= low) & (rates <= high)).sum(), (rates <= high).sum()]
        said = [f"{int(count)} of {len(rates)}" for count in counts]
        realised = [f"{one['false_alerts_per_hour']:.1f}", f"{np.median(rates):.1f}"]
        lines.append([f"{target:g}", *realised, *said, f"{of_perfect:.1f}"])
    return markdown_table(lines)


def _within(low: float, high: float, expected: float) -> float:
    """Probability that a Poisson count lies between two numbers, both included."""
    return float(poisson.cdf(math.floor(high), expected) - poisson.cdf(math.ceil(low) - 1, expected))


def write_csv(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that share their keys."""
    write_lines(file, rows[0], (row.values() for row in rows))


def run(runs: Sequence[Path], directory: Path, out: Path, segment: str | None) -> str:
    """Write the tables into `out`; returns them as Markdown. runs: run folders, a seed each."""
    found = [bundles.load(one / "bundle") for one in runs]
    contract = bedside_of(found[0])
    data = arrhythmia.load(directory / "mitdb", contract, ["N"], ELIGIBLE_DS1 + DS2)
    beats, scores = gather(found, data, directory / "mitdb", bundles.load(segment) if segment else None)
    cells = table(beats, scores)
    write_csv(out / "auroc.csv", [{k: _short(v) for k, v in asdict(cell).items()} for cell in cells])
    records = [
        {"record": name, "score": which, "auroc": round(value, 4)}
        for which, seeds in scores.items()
        for name, value in of_records(beats, seeds[0]).items()
    ]
    write_csv(out / "records.csv", records)
    pictures.rocs(out / "roc.png", curves(beats, scores, ("S", TWO_NUMBERS, FLOOR)))
    kept = np.isin(_places(data.records, data.samples), _places(beats.records, beats.samples))
    limit = found[0].threshold(RATE)
    drawn = examples(beats, data.x[kept & np.isin(data.records, DS2)], scores["S"][0], limit)
    pictures.examples(out / "examples.png", drawn, contract.fs_hz, contract.before_s)
    in_ds2 = np.isin(data.records, DS2)
    hours = evaluate.hours_of_normal_rhythm(data.records[in_ds2], data.classes[in_ds2] == "N", data.hours)
    return f"{markdown(cells)}\n\n## One scale for everybody\n\n{one_scale(found[0].manifest.figures['alerts'], hours)}"


def bedside_of(bundle: Bundle) -> Bedside:
    """Return the contract of a bundle; raises ConfigError where it is another one."""
    if not isinstance(bundle.manifest.contract, Bedside):
        raise ConfigError(f"--runs: {bundle.manifest.name} is no bundle of the bedside contract")
    return bundle.manifest.contract


def curves(beats: Beats, scores: Scores, names: Sequence[str]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return ROC curves of the first seed by class and score, without record 232: false and true positive rates."""
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for kind in "SVF":
        rows = beats.mask(kind)
        abnormal = beats.classes[rows] != "N"
        found[kind] = {name: roc_curve(abnormal, scores[name][0][rows])[:2] for name in names}
    return found


def examples(beats: Beats, x: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, dict[str, np.ndarray]]:
    """Return beats to be drawn, by record and label: the typical beat, an abnormal beat found and one missed.

    Of the records with most abnormal beats; of those found, and of those missed, the one with the median score.
    """
    beat, typical, rhythm = bedside_parts(x)
    abnormal = beats.classes != "N"
    names, counts = np.unique(beats.records[abnormal], return_counts=True)
    shown = {}
    for name in names[np.argsort(-counts, kind="stable")][:EXAMPLES].tolist():
        there = np.flatnonzero((beats.records == name) & abnormal)
        drawn: dict[str, np.ndarray] = {}
        for what, rows in (("found", there[score[there] > threshold]), ("missed", there[score[there] <= threshold])):
            if len(rows):
                chosen = rows[np.argsort(score[rows], kind="stable")[len(rows) // 2]]
                drawn.setdefault("typical beat", typical[chosen])
                share = f"{len(rows)} of {len(there)}"
                label = f"{beats.classes[chosen]}, {what} ({share}), RR {rhythm[chosen, 0]:+.1f}"
                drawn[label] = beat[chosen]
        shown[name] = drawn
    return shown


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
