"""How much of the default model's figures is left with R peaks moved at random, and with noise added.

The noise is that of the MIT-BIH Noise Stress Test Database: baseline wander, electrode motion, muscle artefact.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgwatch.bundle import Bundle
from ecgwatch.records import Record, read_wfdb
from training import evaluate
from training.benchmark.strangers import COLUMNS, Beats, bedside_of, figure
from training.datasets import arrhythmia
from training.datasets.arrhythmia import DS2

JITTER_S = 0.04
NOISES = ("bw", "em", "ma")
SNR_DB = (24, 12, 6)


def disturbed(record: Record, rng: np.random.Generator, jitter_s: float, noise: np.ndarray, snr_db: float) -> Record:
    """Return a record with its R peaks moved at random, uniformly up to jitter_s, and noise added.

    noise: float[m], repeated as needed, from a random place; empty for none. snr_db: as nst of the WFDB software has
    it: the signal's power is that of a sine of the QRS complexes' median peak-to-peak amplitude.
    """
    shift = rng.uniform(-jitter_s, jitter_s, len(record.r_samples)) * record.fs_hz
    moved = np.clip(np.round(record.r_samples + shift), 0, len(record.signal) - 1).astype(np.int64)
    signal = record.signal
    if len(noise):
        around = np.arange(-round(0.05 * record.fs_hz), round(0.05 * record.fs_hz))
        inside = np.clip(record.r_samples[:, None] + around, 0, len(signal) - 1)
        power = np.median(np.ptp(signal[inside], axis=1)) ** 2 / 8
        start = int(rng.integers(len(noise)))
        long = np.resize(np.roll(noise, -start), len(signal))
        gain = np.sqrt(power / 10 ** (snr_db / 10) / long.var())
        signal = (signal + gain * (long - long.mean())).astype(np.float32)
    order = np.argsort(moved, kind="stable")
    return replace(
        record, signal=signal, r_samples=moved[order], symbols=tuple(record.symbols[number] for number in order)
    )


def run(bundle: Bundle, directory: Path) -> list[dict[str, object]]:
    """Return AUROC of S on DS2 with R peaks moved and noise added; directory: the data directory."""
    contract = bedside_of(bundle)
    records = [read_wfdb(directory / "mitdb" / name) for name in DS2]
    noises = {name: read_noise(directory / "nstdb" / name) for name in NOISES}
    none = np.zeros(0)
    cases = [("none", 0.0, none, 0.0), ("none", JITTER_S, none, 0.0)]
    cases += [(name, 0.0, noise, float(snr)) for name, noise in noises.items() for snr in SNR_DB]
    cases += [(name, JITTER_S, noise, 12.0) for name, noise in noises.items()]
    rows: list[dict[str, object]] = []
    for name, jitter_s, noise, snr_db in cases:
        rng = np.random.default_rng(0)
        made = [disturbed(record, rng, jitter_s, noise, snr_db) for record in records]
        data = arrhythmia.join([arrhythmia.record_beats(record, contract, ["N"]) for record in made])
        found = evaluate.predict(bundle, data, np.arange(len(data)), ("N",))
        beats = Beats(data.classes, data.records, data.samples)
        row: dict[str, object] = {
            "noise": name,
            "snr_db": snr_db if len(noise) else "",
            "jitter_ms": round(1000 * jitter_s),
        }
        rows.append(row | {column: round(figure(beats, found.score, column), 4) for column in COLUMNS[:-1]})
        print(rows[-1], flush=True)
    return rows


def read_noise(path: Path) -> np.ndarray:
    """Read the first lead of a noise record, float64[n]."""
    import wfdb

    return wfdb.rdrecord(str(path), channels=[0]).p_signal[:, 0]
