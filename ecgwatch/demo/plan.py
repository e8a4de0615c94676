"""What the demo plays: shipped excerpts of MIT-BIH test records -> beats in the order of their sending; pure."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from ecgwatch.demo.tally import Truth
from ecgwatch.errors import ConfigError
from ecgwatch.messages import JSON, MSGPACK, Beat
from ecgwatch.records import AFTER_S, Record, beats_of, read_excerpt

# Each record, and why the rule chose it among the test records (training/excerpts.py).
EXCERPTS = {
    "100": "first",
    "105": "most noise",
    "213": "most F",
    "232": "most S",
    "233": "most V",
}


@dataclass(frozen=True)
class Planned:
    """One beat, when to publish it (seconds of signal time, when its window is complete) and in which form."""

    due_s: float
    beat: Beat
    truth: Truth
    content_type: str


def read(name: str) -> Record:
    """Read a shipped excerpt; raises ConfigError for a name that is none."""
    if name not in EXCERPTS:
        raise ConfigError(f"no excerpt of record {name} ships with ecgwatch; there are {', '.join(EXCERPTS)}")
    with resources.as_file(resources.files("ecgwatch.demo") / "excerpts" / f"{name}.npz") as path:
        return read_excerpt(path)


def planned(patients: dict[str, Record], start_ms: int) -> list[Planned]:
    """Return the beats of all patients in the order in which bedside monitors would send them.

    patients: pseudonym -> record. An excerpt's first beat has no RR interval and its last ones no complete window: they
    are left out. Every other patient's monitor speaks MessagePack.
    """
    plan: list[Planned] = []
    for (patient, record), content_type in zip(patients.items(), itertools.cycle((JSON, MSGPACK)), strict=False):
        end_s = len(record.signal) / record.fs_hz
        for beat, r, aami in zip(beats_of(record, patient, start_ms), record.r_samples, record.classes, strict=True):
            due_s = float(r) / record.fs_hz + AFTER_S
            if len(beat.rr_ms) and due_s <= end_s:
                plan.append(Planned(due_s, beat, Truth(patient, str(aami), float(beat.rr_ms[-1]) / 1000), content_type))
    return sorted(plan, key=lambda item: item.due_s)


def beds(records: Sequence[str] | None) -> dict[str, str]:
    """Return pseudonym -> record name, one bed a record; None: all excerpts."""
    return {f"bed-{number}": name for number, name in enumerate(dict.fromkeys(records or EXCERPTS), 1)}
