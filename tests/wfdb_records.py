"""WFDB records for tests, made from the demo's excerpts of real ones."""

from pathlib import Path

import numpy as np
import wfdb

from ecgwatch.records import Record, read_excerpt

EXCERPTS = Path(__file__).parent.parent / "ecgwatch" / "demo" / "excerpts"


def excerpt(name: str = "233", seconds: float = 20.0) -> Record:
    """Return the beginning of a shipped excerpt."""
    record = read_excerpt(EXCERPTS / f"{name}.npz")
    end = round(seconds * record.fs_hz)
    inside = int(np.searchsorted(record.r_samples, end))
    return Record(
        record.name, record.fs_hz, record.lead, record.signal[:end], record.r_samples[:inside], record.symbols[:inside]
    )


def write_record(folder: Path, record: Record) -> Path:
    """Write a record as .hea, .dat and .atr and return its path without suffix."""
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        record.name,
        fs=record.fs_hz,
        units=["mV"],
        sig_name=[record.lead],
        p_signal=record.signal[:, None].astype(float),
        fmt=["16"],
        write_dir=str(folder),
    )
    wfdb.wrann(record.name, "atr", record.r_samples, list(record.symbols), write_dir=str(folder))
    return folder / record.name
