"""MIT-BIH beats and their splits: who trains, who sets the scale and the threshold, who is tested.

Two protocols of models. `inter-patient`: de Chazal's DS1 and DS2 (IEEE TBME 2004), paced records out; every fourth DS1
record is held out from training and map, for scaling and thresholds. `by-beat`: the paper's 80/20 over all records,
patients shared between both parts; a tenth of the training part sets scaling and thresholds. For the benchmark also
`by-time`: the last fifth of each record's time is tested, so that no test segment shares samples with a training one;
patients shared.

The records: Goldberger et al. 2000, Moody & Mark 2001; Open Data Commons Attribution.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgwatch.beats import Bedside, Contract, median_rr_s, segment_length, segments
from ecgwatch.messages import Beat
from ecgwatch.patients import prepare
from ecgwatch.records import Record, beats_of, read_wfdb
from training.datasets.dataset import Dataset, Split, SplitName, check_normal
from training.datasets.download import Release
from training.parameters import CLASSES

KINDS = CLASSES["arrhythmia"]
LEARNING_S = 300.0  # AAMI EC57: the first 5 minutes are for learning and are not evaluated
SICK_SINUS = "232"  # 1,382 of its 1,780 beats are class S, most of DS2's: its typical beat is abnormal
PACED = ("102", "104", "107", "217")
DS1 = (
    "101",
    "106",
    "108",
    "109",
    "112",
    "114",
    "115",
    "116",
    "118",
    "119",
    "122",
    "124",
    "201",
    "203",
    "205",
    "207",
    "208",
    "209",
    "215",
    "220",
    "223",
    "230",
)
DS2 = (
    "100",
    "103",
    "105",
    "111",
    "113",
    "117",
    "121",
    "123",
    "200",
    "202",
    "210",
    "212",
    "213",
    "214",
    "219",
    "221",
    "222",
    "228",
    "231",
    "232",
    "233",
    "234",
)
# 201 (DS1) and 202 (DS2) are the same person, so 201 neither trains nor calibrates.
SAME_PERSON_AS_IN_DS2 = ("201",)
ELIGIBLE_DS1 = tuple(name for name in DS1 if name not in SAME_PERSON_AS_IN_DS2)
CALIBRATION = ELIGIBLE_DS1[::4]  # a rule, not a choice: made before any model was trained
RECORDS = tuple(sorted(DS1 + DS2 + PACED))
MARGIN = 720  # samples, 2 s: a segment is at most 1.5 s long
SUMS = "SHA256SUMS.txt"
MITDB = Release(
    title="MIT-BIH records",
    edition="release 1.0.0",
    url="https://physionet.org/files/mitdb/1.0.0",
    folder="mitdb",
    # the list of hashes is itself known by its hash: a changed list is refused like a changed record
    hashes={SUMS: "b61158a96d5f2ca80edfb354a9a66a6324836c390a84e1966dcee2b907d6be43"},
    listing=SUMS,
    listed=tuple(f"{record}.{suffix}" for record in RECORDS for suffix in ("hea", "dat", "atr")),
)


def load(folder: Path, contract: Contract | Bedside, normal: Sequence[str], names: Sequence[str] = RECORDS) -> Dataset:
    """Read records and make model inputs of all their beats that can be scored.

    folder: holds the WFDB files. Raises DataError for a missing file.
    """
    parts = [record_beats(read_wfdb(folder / name), contract, normal) for name in names]
    return join(parts)


def join(parts: Sequence[Dataset]) -> Dataset:
    """Put the beats of several records into one."""
    x, classes, records, samples, clean = (
        np.concatenate([getattr(part, field) for part in parts])
        for field in ("x", "classes", "records", "samples", "clean")
    )
    hours = {name: hours for part in parts for name, hours in part.hours.items()}
    return Dataset(x, classes, records, samples, clean, hours, KINDS)


def record_beats(record: Record, contract: Contract | Bedside, normal: Sequence[str]) -> Dataset:
    """Make model inputs of one record's beats, through the code that the worker uses.

    Of the bedside contract those beats alone whose patient's typical beat was learned, and the hours that they cover.
    """
    beats = beats_of(record, record.name)
    duration_s, learning_s = len(record.signal) / record.fs_hz, 0.0
    if isinstance(contract, Contract) and contract.rr_window == "centred":
        x, kept = _centred(record, beats, contract)
    else:
        x, kept, _, known = prepare(beats, contract, {})
        if isinstance(contract, Bedside):
            learned = np.array(known) == "learned"
            x, kept = x[learned], kept[learned]
            learning_s = float(record.r_samples[kept[0]] / record.fs_hz) if len(kept) else duration_s
    classes = record.classes
    return Dataset(
        x,
        classes[kept],
        np.full(len(kept), record.name, "<U8"),
        record.r_samples[kept],
        _clean(record, beats, contract, np.isin(classes, list(normal)))[kept],
        {record.name: (duration_s - learning_s) / 3600},
        KINDS,
    )


def _median_rr(record: Record, beats: Sequence[Beat], contract: Contract) -> np.ndarray:
    """Median RR of each beat by the contract's window, seconds; NaN where there is no interval."""
    if contract.rr_window == "past":
        return np.array([median_rr_s(b.rr_ms, contract.rr_window_s) if len(b.rr_ms) else np.nan for b in beats])
    t = record.r_samples / record.fs_hz
    half = contract.rr_window_s / 2
    first, last = np.searchsorted(t, t - half), np.searchsorted(t, t + half, side="right")
    return np.array([np.median(np.diff(t[a:b])) if b - a > 1 else np.nan for a, b in zip(first, last, strict=True)])


def _centred(record: Record, beats: Sequence[Beat], contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """Segments as in the published CSV files, whose median RR looks 5 s ahead; for parity only."""
    medians = _median_rr(record, beats, contract)
    after_s = np.array([(len(b.samples) - 1 - b.r_index) / b.fs_hz for b in beats])
    whole = (segment_length(np.nan_to_num(medians, nan=1), contract) - 1) / contract.fs_hz <= after_s
    kept = np.flatnonzero(np.isfinite(medians) & whole)
    x, flat = segments([beats[number] for number in kept.tolist()], medians[kept], contract)
    return x[~flat], kept[~flat]


def _clean(record: Record, beats: Sequence[Beat], contract: Contract | Bedside, is_normal: np.ndarray) -> np.ndarray:
    """True where every beat with its R peak from its own to the window's end is normal, bool[n]."""
    if isinstance(contract, Bedside):
        after_s: float | np.ndarray = contract.after_s + contract.align_s
    else:
        medians = np.nan_to_num(_median_rr(record, beats, contract), nan=1)
        after_s = segment_length(medians, contract) / contract.fs_hz
    end = record.r_samples + after_s * record.fs_hz
    last = np.searchsorted(record.r_samples, end)
    abnormal_before = np.concatenate([[0], np.cumsum(~is_normal)])
    return abnormal_before[last] == abnormal_before[np.arange(len(beats))]


def split(
    beats: Dataset,
    name: SplitName,
    normal: Sequence[str],
    keep_mixed_windows: bool = False,
    seed: int = 0,
    folds: int = 0,
) -> Split:
    """Assign beats to training, calibration and test.

    normal: classes that train. keep_mixed_windows: also train on normal beats whose window holds an abnormal one
    (parity with the paper's data). seed: of the by-beat draw. folds: between patients, how many folds of DS1's records
    take turns in calibrating; 0: those of CALIBRATION do, and do not train. Raises DataError for an unknown class.
    """
    check_normal(normal, KINDS)
    usable = np.isin(beats.classes, list(normal)) & (beats.clean | keep_mixed_windows)
    if name == "inter-patient":
        held_back = () if folds else CALIBRATION
        trains = np.isin(beats.records, [record for record in ELIGIBLE_DS1 if record not in held_back])
        calibrates = np.isin(beats.records, held_back or ELIGIBLE_DS1)
        tests = np.isin(beats.records, DS2)
        # a ward's normal rhythm has windows of every kind: calibration and test leave nothing out
        normal_there = calibrates & np.isin(beats.classes, list(normal))
        made = Split(name, tuple(normal), *(np.flatnonzero(m) for m in (trains & usable, normal_there, tests)))
        if not folds:
            return made
        of_record = {record: number % folds for number, record in enumerate(ELIGIBLE_DS1)}
        return replace(made, folds=np.array([of_record[one] for one in beats.records[made.calibration].tolist()]))
    rng = np.random.default_rng(seed)
    is_test = _is_late(beats) if name == "by-time" else _is_drawn(beats, rng)
    if name == "by-time":
        usable &= ~_is_late(beats, MARGIN)
    calibrates = ~is_test & (rng.random(len(beats)) < 0.1) & np.isin(beats.classes, list(normal))
    return Split(
        name, tuple(normal), *(np.flatnonzero(m) for m in (~is_test & ~calibrates & usable, calibrates, is_test))
    )


def _is_drawn(beats: Dataset, rng: np.random.Generator) -> np.ndarray:
    """Draw a fifth of each class, as the published 80/20 split is stratified; bool[n]."""
    drawn = np.zeros(len(beats), bool)
    for kind in KINDS:
        of_kind = rng.permutation(np.flatnonzero(beats.classes == kind))
        drawn[of_kind[: round(0.2 * len(of_kind))]] = True
    return drawn


def _is_late(beats: Dataset, margin: int = 0) -> np.ndarray:
    """Return which beats lie in the last fifth of their record, or up to `margin` samples before it; bool[n]."""
    late = np.zeros(len(beats), bool)
    for record in np.unique(beats.records):
        there = beats.records == record
        first, last = beats.samples[there].min(), beats.samples[there].max()
        late |= there & (beats.samples >= first + 0.8 * (last - first) - margin)
    return late
