"""The ready-made 'ECG Heartbeat Categorization' files (Kachuee et al. 2018), for those who own them.

mitbih_train.csv and mitbih_test.csv: no header; a line is a beat, 187 values in [0, 1] (the paper's segment, padded
with zeros) and a label 0-4. The files are the by-beat 80/20 split itself; they name neither record nor patient.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgwatch.errors import DataError
from training.datasets.arrhythmia import KINDS
from training.datasets.dataset import Dataset, Split, check_normal

LENGTH = 187
FS_HZ = 125.0
RR_FACTOR = 1.2  # a segment is 1.2 x the median RR long, before padding
TRAIN, TEST = "mitbih_train.csv", "mitbih_test.csv"
# What was published, classes N S V F Q; other counts mean another edition of the files.
PUBLISHED = {TRAIN: (72471, 2223, 5788, 641, 6431), TEST: (18118, 556, 1448, 162, 1608)}
CALIBRATION_SHARE = 0.1  # of the training file


def read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return x float32[n, 187] and AAMI classes '<U1'[n] of one file.

    Raises DataError naming file and line where a line is not 188 numbers, a value is outside [0, 1], a segment is
    empty or a label is not one of 0-4. Warns where a published file's counts are not the published ones.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy's that there is nothing: said below
            values = np.loadtxt(file, np.float32, comments=None, delimiter=",", ndmin=2)
    except FileNotFoundError:
        raise DataError(
            f"{file} is missing: put {TRAIN} and {TEST} (Kaggle: 'ECG Heartbeat Categorization Dataset') there"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError):
        raise DataError(f"{file}:{_bad_line(file)}: not {LENGTH + 1} numbers with commas between them") from None
    if not len(values):
        raise DataError(f"{file} is empty")
    if values.shape[1] != LENGTH + 1:
        raise DataError(f"{file}:1: {values.shape[1]} numbers; a line is {LENGTH} values and a label")
    x, labels = values[:, :LENGTH], values[:, LENGTH]
    _refuse(file, np.any(~((x >= 0) & (x <= 1)), axis=1), "a value is outside [0, 1]")
    _refuse(file, ~np.isin(labels, np.arange(len(KINDS))), "the label is not one of 0, 1, 2, 3, 4")
    _refuse(file, (x == 0).all(axis=1), "the segment is empty: all its values are 0")
    counts = tuple(np.bincount(labels.astype(int), minlength=len(KINDS)).tolist())
    if counts != PUBLISHED.get(file.name, counts):
        said = ", ".join(f"{kind} {n}" for kind, n in zip(KINDS, counts, strict=True))
        published = ", ".join(f"{kind} {n}" for kind, n in zip(KINDS, PUBLISHED[file.name], strict=True))
        warnings.warn(f"{file} holds {said}; published were {published}", stacklevel=2)
    return np.ascontiguousarray(x), np.array(list(KINDS), "<U1")[labels.astype(int)]


def load(folder: Path) -> Dataset:
    """Read both files as a Dataset; 'records' are the files' names, samples the lines, every window counts as clean.

    Raises DataError as `read` does.
    """
    parts = {name: read(folder / name) for name in (TRAIN, TEST)}
    x = np.concatenate([x for x, _ in parts.values()])
    return Dataset(
        x,
        np.concatenate([classes for _, classes in parts.values()]),
        np.concatenate([np.full(len(x), name.removesuffix(".csv")) for name, (x, _) in parts.items()]),
        np.concatenate([np.arange(1, len(x) + 1) for x, _ in parts.values()]),
        np.ones(len(x), bool),
        {name.removesuffix(".csv"): hours(x) for name, (x, _) in parts.items()},
        KINDS,
    )


def hours(x: np.ndarray) -> float:
    """Estimate how long the beats lasted from how much of each segment is signal: 1.2 RR intervals."""
    signal = LENGTH - (x[:, ::-1] != 0).argmax(axis=1)
    return float(signal.sum()) / FS_HZ / RR_FACTOR / 3600


def split(beats: Dataset, normal: Sequence[str], seed: int = 0) -> Split:
    """Assign the test file to test, a tenth of the training file's normal beats to calibration, the others to training.

    Raises DataError for an unknown class.
    """
    check_normal(normal, KINDS)
    is_normal = np.isin(beats.classes, list(normal))
    tests = beats.records == TEST.removesuffix(".csv")
    drawn = np.random.default_rng(seed).random(len(beats)) < CALIBRATION_SHARE
    parts = (is_normal & ~tests & ~drawn, is_normal & ~tests & drawn, tests)
    return Split("by-beat", tuple(normal), *(np.flatnonzero(part) for part in parts))


def _refuse(file: Path, bad: np.ndarray, why: str) -> None:
    if bad.any():
        raise DataError(f"{file}:{_line(file, int(bad.argmax()))}: {why}")


def _line(file: Path, row: int) -> int:
    """Return the line number of a row: numpy skips empty lines."""
    with file.open(encoding="utf-8") as opened:
        filled = (number for number, line in enumerate(opened, 1) if line.strip())
        return next(number for position, number in enumerate(filled) if position == row)


def _bad_line(file: Path) -> int:
    """Return the number of the first line that is not 188 numbers."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, 1):
            fields = line.strip().split(",")
            if line.strip() and not (len(fields) == LENGTH + 1 and all(map(_is_number, fields))):
                return number
    return 1


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
