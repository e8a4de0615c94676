"""Two ECG leads as one input, beside one lead (the paper's outlook): the default model, from DS1 to DS2.

    ecgwatch benchmark leads --seeds 0 1 2     # what docs/benchmark/leads.csv holds is not done again

Each lead is prepared alone, by the code that the worker uses: it has a window and a typical beat of its own. Both runs
of a seed see the same beats, those that both leads can score. An experiment: no bundle is made of it, and no contract.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ecgwatch.beats import Bedside, bedside_parts
from ecgwatch.errors import DataError
from ecgwatch.records import read_wfdb
from training.benchmark import folds, strangers
from training.benchmark.auroc import interval
from training.benchmark.rows import read_csv, write_csv
from training.benchmark.strangers import COLUMNS, Beats
from training.datasets import arrhythmia
from training.datasets.dataset import Dataset, Split
from training.evaluate import TERMS, Predictions, load_predictions
from training.parameters import BEDSIDE
from training.run_folder import open_run
from training.text import markdown_table

LEADS = (1, 2)
DIFFERENCE = "2 - 1"
SCORES = dict(zip(("NSE alone", "D alone", "S"), TERMS, strict=True))  # as the tables of strangers have them
PROTOCOL = """# Two leads as one input, beside one

Written by `ecgwatch benchmark leads`. The default model and its settings, trained on the first lead alone and on both
leads of the MIT-BIH records as one input: normal beats of DS1 patients train, normal beats of other DS1 patients set
the scales, DS2 is tested (de Chazal; 201 left out). The first lead is MLII; the second is whatever the record's other
signal is: V1 of most records, V2, V4 or V5 of six others (100, 103, 114, 117, 123, 124). So a second lead of one kind
is not promised, neither in training nor in the test.

- Input: of each lead the beat and its own typical beat, prepared alone; RR ratio and pauses once, from the first lead.
- Network: the same TCN with four channels in the place of two; the decoder draws the deviations of both leads, RR ratio
  and pauses. Made-up ectopic waves in training have one place and width in both leads, a height of their own in each.
- Both runs train and are tested on the same beats, those after the first 5 minutes that both leads can score; annotated
  R peaks.
- AUROC, class N against the rest; S, V, F: that class against N, without record 232. In brackets: 95 % interval over
  patients drawn again; a difference takes both runs from the same draws, a mean over seeds all its runs.
- Other than the default model's: one calibration (on every fourth record of DS1) in the place of crossed ones.
- In the runs of 2026-11-27 (seeds 0, 1 and 2) the decoder of two leads learned to draw next to nothing in two of three
  seeds: reconstruction loss .584 where drawing nothing has .587 (the third seed .534; of one lead .126 to .197 where
  that has .223). NSE there is the input's own energy, and these two seeds' NSE have the same AUROC in every column: a
  mean over such seeds says less than three seeds seem to. The settings were chosen for one lead, and no others were
  tried for two. More: [strangers.md](../strangers.md), "Two leads".
- The command trains on the CPU, one thread. Which machine made these rows, and in what time, was not kept."""


@dataclass(frozen=True)
class Row:
    """AUROC of one score over one column of `strangers`, with its 95 % interval over patients.

    seeds: one, or those that it is the mean of; leads: 1, 2, or DIFFERENCE, how far two are above one.
    """

    seeds: str
    leads: str
    score: str
    column: str
    auroc: float
    lower: float
    upper: float


def load(folder: Path, contract: Bedside, names: Sequence[str]) -> Dataset:
    """Read records and make inputs of two leads (`paired`); folder: holds the WFDB files.

    The first lead is the one that every other command takes, the second the record's other signal. Raises DataError
    for a missing file, or a record that has one lead.
    """
    parts = []
    for name in names:
        first = read_wfdb(folder / name)
        second = read_wfdb(folder / name, _other_lead(folder / name, first.lead))
        parts.append(paired(*(arrhythmia.record_beats(one, contract, ["N"]) for one in (first, second))))
    return arrhythmia.join(parts)


def _other_lead(path: Path, first: str) -> str:
    import wfdb

    others = [name for name in wfdb.rdheader(str(path)).sig_name if name != first]
    if not others:
        raise DataError(f"record {path}: {first} is its only lead; this comparison needs two")
    return others[0]


def paired(first: Dataset, second: Dataset) -> Dataset:
    """Join the bedside inputs of two leads of one record, of the beats that both can score.

    x: float32[n, 4 samples + 2]: the beat in both leads, the typical beats of both, RR ratio and pauses of the first;
    so `bedside_parts` splits it, and all else is the first lead's.
    """
    _, here, there = np.intersect1d(first.samples, second.samples, return_indices=True)
    beat, typical, rhythm = bedside_parts(first.x[here])
    other_beat, other_typical, _ = bedside_parts(second.x[there])
    x = np.concatenate([beat, other_beat, typical, other_typical, rhythm], axis=1)
    kept = {name: getattr(first, name)[here] for name in ("classes", "records", "samples", "clean")}
    return replace(first, x=x, **kept)


def first_lead(beats: Dataset) -> Dataset:
    """Return the same beats with the first lead alone: x float32[n, 2 samples + 2]."""
    beat, typical, rhythm = bedside_parts(beats.x)
    samples = beat.shape[1] // 2
    return replace(beats, x=np.concatenate([beat[:, :samples], typical[:, :samples], rhythm], axis=1))


def run(seeds: Sequence[int], directory: Path, runs: Path, out: Path) -> list[Row]:
    """Train and score what `out`/leads.csv lacks, and write it; returns its rows.

    directory: the data directory; runs: where each run keeps its checkpoint and predictions. Intervals of differences
    and means need the predictions: rows of runs whose predictions lie elsewhere stay as they are.
    """
    file = out / "leads.csv"
    rows = read_csv(file, Row)
    done = {(row.seeds, row.leads) for row in rows}
    measured = {}

    @cache
    def data() -> tuple[Dataset, Split]:
        print("reading both leads of DS1 and DS2", flush=True)
        beats = load(directory / "mitdb", Bedside(), arrhythmia.ELIGIBLE_DS1 + arrhythmia.DS2)
        return beats, arrhythmia.split(beats, "inter-patient", ["N"])

    for seed, leads in itertools.product(seeds, LEADS):
        folder = runs / f"leads-{leads}-seed-{seed}"
        saved, title = folder / "predictions.npz", f"seed {seed}, leads {leads}"
        if (str(seed), str(leads)) in done:
            print(f"{title}: {file} holds it", flush=True)
            if not saved.exists():
                continue
            found = load_predictions(saved)
        else:
            beats, split = data()
            print(f"{title}: training on {len(split.train):,} beats, testing on {len(split.test):,}", flush=True)
            began = time.monotonic()
            found = predict(beats if leads == 2 else first_lead(beats), split, leads, seed, folder)
            found.save(saved)
            print(f"{title}: done after {time.monotonic() - began:.0f} s", flush=True)
        measured[seed, leads] = measure(found)
        rows = _joined(rows, list(figures(measured, seeds)))
        write_csv(file, rows)
    return read_csv(file, Row)  # rounded, as the page is made of them the next time


def predict(beats: Dataset, split: Split, leads: int, seed: int, folder: Path) -> Predictions:
    """Train the default model on beats of so many leads, and score the test's; folder: the run's."""
    torch.set_num_threads(1)
    parameters = replace(BEDSIDE, leads=leads, seed=seed)
    open_run(folder, parameters)
    rows = split.test
    nse, distance, s = folds.train_and_score(parameters, beats, split.train, split.calibration, rows, folder)
    classes = beats.classes[rows]
    return Predictions(nse, distance, s, classes, beats.records[rows], beats.samples[rows], normal=classes == "N")


Measured = dict[tuple[str, str], np.ndarray]  # by score and column: AUROC, then that of each draw of patients


def measure(found: Predictions) -> Measured:
    """Return AUROC of each score over each column, and of the patients drawn again: float64[1 + draws]."""
    beats = Beats(found.classes, found.records, found.samples)
    measured = {}
    for score, term in SCORES.items():
        values = getattr(found, term)
        for column in COLUMNS:
            drawn = strangers.over_patients(beats, values, column)
            measured[score, column] = np.append(strangers.figure(beats, values, column), drawn)
    return measured


def figures(measured: Mapping[tuple[int, int], Measured], seeds: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of each seed and of their mean, as far as their runs are there; measured: by seed and leads."""
    for group in dict.fromkeys([*((seed,) for seed in seeds), tuple(seeds)]):
        means = {
            str(leads): {
                cell: np.mean([measured[seed, leads][cell] for seed in group], axis=0)
                for cell in measured[group[0], leads]
            }
            for leads in LEADS
            if all((seed, leads) in measured for seed in group)
        }
        if len(means) == len(LEADS):
            one, two = means.values()
            means[DIFFERENCE] = {cell: two[cell] - one[cell] for cell in one}
        for name, cells in means.items():
            for cell, values in cells.items():
                yield Row(" ".join(map(str, group)), name, *cell, float(values[0]), *interval(values[1:]))


def _joined(before: Sequence[Row], made: Sequence[Row]) -> list[Row]:
    """Put new rows in the place of those before; seeds first, then means."""
    new = {(row.seeds, row.leads) for row in made}
    rows = [*(row for row in before if (row.seeds, row.leads) not in new), *made]

    def place(row: Row) -> tuple[int, list[int], str]:
        numbers = [int(one) for one in row.seeds.split()]
        return len(numbers), numbers, row.leads

    return sorted(rows, key=place)


def page(rows: Sequence[Row]) -> str:
    """Return the page, Markdown."""
    tables = [f"## {score}\n\n{table([row for row in rows if row.score == score])}" for score in reversed(SCORES)]
    return "\n\n".join([PROTOCOL, reading(rows), *tables])


def reading(rows: Sequence[Row]) -> str:
    """Say over which columns the interval of S's difference lies above zero, below it, or holds it."""
    found = [row for row in rows if (row.leads, row.score) == (DIFFERENCE, "S")]
    if not found:
        return "No seed has both runs yet."
    seeds = max((row.seeds for row in found), key=lambda one: len(one.split()))
    of_seeds = [row for row in found if row.seeds == seeds]
    sides = {
        "higher": [row for row in of_seeds if row.lower > 0],
        "lower": [row for row in of_seeds if row.upper < 0],
        "the interval of the difference holds zero": [row for row in of_seeds if row.lower <= 0 <= row.upper],
    }
    said = [f"{side}: {', '.join(row.column for row in there) or 'none'}" for side, there in sides.items()]
    return f"**S with two leads against S with one (seeds: {seeds})** — {'; '.join(said)}."


def table(rows: Sequence[Row]) -> str:
    """Return the table of one score: seeds and leads down, columns across."""
    lines = [["seeds", "leads", *COLUMNS], ["---", "---"] + ["---:"] * len(COLUMNS)]
    for seeds, leads in dict.fromkeys((row.seeds, row.leads) for row in rows):
        sign = "+" if leads == DIFFERENCE else ""
        of_line = {row.column: row for row in rows if (row.seeds, row.leads) == (seeds, leads)}
        said = [f"{one.auroc:{sign}.3f} [{one.lower:{sign}.3f}, {one.upper:{sign}.3f}]" for one in of_line.values()]
        mean = ", mean" if " " in seeds else ""
        lines.append([seeds + mean, leads, *said])
    return markdown_table(lines)
