"""Make the demo's excerpts from the MIT-BIH records: `make excerpts`, or `python -m training.excerpts`.

Which records and which minutes is a rule on annotations and nothing else; no score was looked at. Of de Chazal's test
records (DS2): the first, and those with the most noise marks, the most S, V and F beats. Minutes 5 to 9 of each: the
first five are left out, as ANSI/AAMI EC57 does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgwatch.errors import DataError
from ecgwatch.records import AAMI
from training import script
from training.datasets.arrhythmia import DS2

START_S, SECONDS = 300, 240
NOISE = "~"  # WFDB's symbol for a change in signal quality
FOLDER = Path(__file__).parent.parent / "ecgwatch" / "demo" / "excerpts"


def main(argv: Sequence[str] | None = None) -> None:
    """Write one .npz per chosen record into the package."""
    script.run("training.excerpts", __doc__, _write, argv)


def _write(records: Path) -> None:
    for name in chosen({record: symbols(records / record) for record in DS2}):
        np.savez_compressed(FOLDER / f"{name}.npz", allow_pickle=False, **excerpt(records / name))


def chosen(symbols_of: Mapping[str, list[str]]) -> list[str]:
    """Return the records that the rule picks, in order, from each record's annotation symbols."""
    names = sorted(symbols_of)
    picked = {names[0]}
    picked.add(max(names, key=lambda name: symbols_of[name].count(NOISE)))
    for kind in "SVF":
        picked.add(max(names, key=lambda name: sum(AAMI.get(symbol) == kind for symbol in symbols_of[name])))
    return sorted(picked)


def symbols(path: Path) -> list[str]:
    """Return all annotation symbols of a record (path without suffix); raises DataError where it is missing."""
    import wfdb

    try:
        return wfdb.rdann(str(path), "atr").symbol
    except FileNotFoundError:
        raise DataError(f"{path}.atr is missing; name the folder of mitdb/ in ECGWATCH_DATA_DIRECTORY") from None


def excerpt(path: Path) -> dict[str, np.ndarray]:
    """Cut an excerpt as `ecgwatch.records.read_excerpt` reads it: lead MLII, in the recorder's own units.

    Raises DataError where a file of the record is missing.
    """
    import wfdb

    try:
        header = wfdb.rdheader(str(path))
        channel = header.sig_name.index("MLII")
        first, last = round(START_S * header.fs), round((START_S + SECONDS) * header.fs)
        record = wfdb.rdrecord(str(path), first, last, channels=[channel], physical=False)
        annotation = wfdb.rdann(str(path), "atr", first, last - 1, shift_samps=True)
    except FileNotFoundError as error:
        raise DataError(f"record {path}: {Path(str(error.filename)).name} is missing") from None
    is_beat = np.array([symbol in AAMI for symbol in annotation.symbol], bool)
    return {
        "name": np.array(path.name),
        "fs_hz": np.array(float(header.fs)),
        "lead": np.array("MLII"),
        "signal_adu": record.d_signal[:, 0].astype(np.int16),
        "adu_per_mv": np.array(float(header.adc_gain[channel])),
        "baseline": np.array(int(header.baseline[channel])),
        "r_samples": np.asarray(annotation.sample, np.int64)[is_beat],
        "symbols": np.array(annotation.symbol, "<U1")[is_beat],
        "start_sample": np.array(first),
    }


if __name__ == "__main__":
    main()
