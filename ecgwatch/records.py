"""ECG records with annotated R peaks -> beats; what `train`, `score`, `replay` and the demo read.

Words as in the WFDB library: record, fs, annotation, sample, symbol. wfdb itself is imported only where a WFDB record
is read: the worker's installation does without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgwatch.errors import DataError
from ecgwatch.messages import Beat

# Classes of ANSI/AAMI EC57 by the annotation symbols of WFDB, escape beats (e, j, n) as de Chazal et al. have them;
# B, n, r and ? are not in MIT-BIH. Symbols that are no beat are absent; so is ! (a flutter wave), as in EC57.
AAMI = {
    **dict.fromkeys("NLRBejn", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ?", "Q"),
}

# What a beat message carries around R: enough for the paper's segment (1.5 s after R and the resampling filter's
# reach) and for windows that begin before the P wave.
BEFORE_S = 0.5
AFTER_S = 1.75
RR_INTERVALS = 40  # 10 s at 240 beats a minute


@dataclass(frozen=True)
class Record:
    """One lead of one recording with its annotated beats.

    signal: float32[n], millivolts, at `fs_hz`; r_samples: int64[m], positions of the R peaks, rising;
    symbols: m annotation symbols, all keys of AAMI.
    """

    name: str
    fs_hz: float
    lead: str
    signal: np.ndarray
    r_samples: np.ndarray
    symbols: tuple[str, ...]

    @property
    def classes(self) -> np.ndarray:
        """AAMI class of each beat, '<U1'[m]."""
        return np.array([AAMI[symbol] for symbol in self.symbols], "<U1")


def read_wfdb(path: Path, lead: str | None = None) -> Record:
    """Read a WFDB record and its `atr` annotations.

    path: without suffix. lead: None takes MLII where there is one, else the first.
    Raises DataError where wfdb, a file or the lead is missing.
    """
    try:
        import wfdb
    except ImportError:
        raise DataError("reading WFDB records needs wfdb: in a clone, pip install '.[records]'") from None
    try:
        header = wfdb.rdheader(str(path))
        channel = _channel(header.sig_name, lead, path)
        # float64 in, float32 out: the shipped excerpts and the records then give the same numbers
        signal = wfdb.rdrecord(str(path), channels=[channel]).p_signal[:, 0].astype(np.float32)
        annotation = wfdb.rdann(str(path), "atr")
    except FileNotFoundError as error:
        raise DataError(f"record {path}: {Path(str(error.filename)).name} is missing") from None
    except (ValueError, IndexError, KeyError, TypeError) as error:  # what wfdb raises on files that are damaged
        raise DataError(f"record {path}: damaged, or no WFDB record: {' '.join(str(error).split())}") from None
    is_beat = np.array([symbol in AAMI for symbol in annotation.symbol], bool)
    symbols = tuple(symbol for symbol, beat in zip(annotation.symbol, is_beat, strict=True) if beat)
    samples = np.asarray(annotation.sample, np.int64)[is_beat]
    return Record(Path(path).name, float(header.fs), header.sig_name[channel], signal, samples, symbols)


def _channel(names: list[str], lead: str | None, path: Path) -> int:
    if lead is None:
        return names.index("MLII") if "MLII" in names else 0
    if lead not in names:
        raise DataError(f"record {path}: no lead {lead}; it has {', '.join(names)}")
    return names.index(lead)


def read_excerpt(path: Any) -> Record:
    """Read an excerpt as shipped for the demo (training/excerpts.py writes them)."""
    with np.load(path, allow_pickle=False) as data:
        signal = (data["signal_adu"].astype(np.float64) - float(data["baseline"])) / float(data["adu_per_mv"])
        return Record(
            str(data["name"]),
            float(data["fs_hz"]),
            str(data["lead"]),
            signal.astype(np.float32),
            data["r_samples"].astype(np.int64),
            tuple(str(symbol) for symbol in data["symbols"]),
        )


def beats_of(record: Record, patient: str, start_ms: int = 0) -> list[Beat]:
    """Cut a record into one Beat per annotated beat, in time order.

    start_ms: time of the record's first sample, ms since 1970. A window that the record's edges cut stays shorter.
    """
    before, after = round(BEFORE_S * record.fs_hz), round(AFTER_S * record.fs_hz)
    rr_ms = (np.diff(record.r_samples) * (1000.0 / record.fs_hz)).astype(np.float32)
    beats = []
    for number, r in enumerate(record.r_samples.tolist()):
        first = max(0, r - before)
        beats.append(
            Beat(
                patient=patient,
                lead=record.lead,
                r_time_ms=start_ms + round(r * 1000 / record.fs_hz),
                fs_hz=record.fs_hz,
                r_index=r - first,
                samples=record.signal[first : r + after],
                rr_ms=rr_ms[max(0, number - RR_INTERVALS) : number],
            )
        )
    return beats
