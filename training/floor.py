"""The floor between patients: two numbers per beat that need no training, which a learned score must beat.

Prematurity: -log(RR before the beat / median of the 10 RR before that one). Residual: distance to the patient's own
typical beat, relative to its amplitude; the typical beat is learnt from the first 5 minutes, without labels. Together:
tail probability of the residual + half that of prematurity, tails from normal beats of the reference patients.
Evaluated as AAMI has it: annotated R peaks, beats after the first 5 minutes, class N against the rest.

    python -m training.floor        # the table of docs/training.md, from the records in the data directory
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from ecgwatch.errors import DataError
from ecgwatch.records import Record, read_wfdb
from training import script
from training.datasets.arrhythmia import DS2, ELIGIBLE_DS1, LEARNING_S, SICK_SINUS
from training.text import markdown_table

RECENT_RR = 10
BEFORE_S, AFTER_S = 0.25, 0.5
TYPICAL_SHARE = 0.5  # the half of the early beats nearest to their median: a third of them may be ectopic (208, 233)


@dataclass(frozen=True)
class Measured:
    """The two numbers of one record's evaluated beats.

    classes: '<U1'[n] AAMI; prematurity, residual: float64[n], larger is more abnormal; samples: int64[n], R.
    """

    name: str
    classes: np.ndarray
    prematurity: np.ndarray
    residual: np.ndarray
    samples: np.ndarray


def measure(record: Record) -> Measured:
    """Measure every beat after the first 5 minutes.

    Raises DataError where no beat lies in the first 5 minutes.
    """
    late = record.r_samples >= LEARNING_S * record.fs_hz
    beats = windows(record)
    if late.all():
        raise DataError(f"record {record.name}: no beat in the first {LEARNING_S:g} s to learn the typical beat from")
    typical = typical_beat(beats[~late])
    amplitude = max(float(np.ptp(typical)), 1e-6)
    residual = np.sqrt(((beats - typical) ** 2).mean(axis=1)) / amplitude
    return Measured(
        record.name, record.classes[late], prematurity(record)[late], residual[late], record.r_samples[late]
    )


def prematurity(record: Record) -> np.ndarray:
    """Return -log(RR before / median of the 10 RR before that), float64[n]; 0 where nothing came before."""
    rr = np.diff(record.r_samples) / record.fs_hz
    result = np.zeros(len(record.r_samples))
    if len(rr) > 1:
        padded = np.concatenate([np.full(RECENT_RR - 1, np.nan), rr[:-1]])
        recent = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, RECENT_RR), axis=1)
        result[2:] = -np.log(rr[1:] / recent)
    return result


def windows(record: Record) -> np.ndarray:
    """Cut 0.25 s before R to 0.5 s after R, each without its own median (the baseline wanders), float64[n, t]."""
    around = np.arange(-round(BEFORE_S * record.fs_hz), round(AFTER_S * record.fs_hz))
    inside = np.clip(record.r_samples[:, None] + around, 0, len(record.signal) - 1)
    cut = record.signal[inside].astype(np.float64)
    return cut - np.median(cut, axis=1, keepdims=True)


def typical_beat(beats: np.ndarray) -> np.ndarray:
    """Return the trimmed median of beats, float64[t]: the median of those nearest to the median of all."""
    distances = ((beats - np.median(beats, axis=0)) ** 2).sum(axis=1)
    return np.median(beats[distances <= np.quantile(distances, TYPICAL_SHARE)], axis=0)


def surprise(values: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return -log of the share of normal values that are at least as large, float64[n]; finite beyond the largest."""
    above = len(normal) - np.searchsorted(np.sort(normal), values, side="left")
    return -np.log((above + 1) / (len(normal) + 1))


def floor_scores(tested: Sequence[Measured], reference: Sequence[Measured]) -> dict[str, list[np.ndarray]]:
    """Return the floor's scores by name, one float64[n] per tested record.

    reference: other patients; their normal beats give the tails.
    """
    normal_residual = np.concatenate([one.residual[one.classes == "N"] for one in reference])
    normal_prematurity = np.concatenate([one.prematurity[one.classes == "N"] for one in reference])
    return {
        "prematurity": [one.prematurity for one in tested],
        "residual": [one.residual for one in tested],
        "both": [
            surprise(one.residual, normal_residual) + surprise(one.prematurity, normal_prematurity) / 2
            for one in tested
        ],
    }


def auroc_table(tested: Sequence[Measured], scores: dict[str, list[np.ndarray]]) -> dict[str, dict[str, float]]:
    """Return AUROC of N against the rest by score: all, without 232, and S, V, F each against N without 232.

    A column that has no abnormal beat is left out.
    """
    classes = np.concatenate([one.classes for one in tested])
    others = np.concatenate([np.full(len(one.classes), one.name != SICK_SINUS) for one in tested])
    columns = {"all": np.ones(len(classes), bool), "without 232": others}
    columns |= {kind: others & np.isin(classes, ["N", kind]) for kind in "SVF"}
    return {
        name: {
            column: float(roc_auc_score(classes[rows] != "N", np.concatenate(parts)[rows]))
            for column, rows in columns.items()
            if len(np.unique(classes[rows] != "N")) == 2
        }
        for name, parts in scores.items()
    }


def table_text(table: dict[str, dict[str, float]]) -> str:
    """Return the table as Markdown."""
    columns = list(next(iter(table.values())))
    lines = [["floor", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(f"{row[column]:.3f}" for column in columns)] for name, row in table.items()]
    return markdown_table(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the floor on DS2, tails from DS1 without 201."""
    script.run("training.floor", __doc__, lambda folder: print(table_text(on_ds2(folder))), argv)


def on_ds2(folder: Path) -> dict[str, dict[str, float]]:
    """Return the floor's table on DS2, as `auroc_table`; folder: of the records."""
    tested, reference = ([measure(read_wfdb(folder / name)) for name in names] for names in (DS2, ELIGIBLE_DS1))
    return auroc_table(tested, floor_scores(tested, reference))


if __name__ == "__main__":
    main()
