"""Score WFDB records at their annotated R peaks, without Kafka: the code behind `ecgwatch score`."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from ecgwatch import bundle
from ecgwatch.config import Settings
from ecgwatch.errors import MessageError
from ecgwatch.logs import log
from ecgwatch.messages import Known, refusal
from ecgwatch.patients import Patients
from ecgwatch.records import Record, beats_of, read_wfdb
from ecgwatch.scorer import Scorer, score_each


class ScoredBeat(msgspec.Struct, frozen=True):
    """One line of `ecgwatch score`.

    sample: position of the R peak in the record; annotation: the record's own symbol there. A beat that does not fit
    the model's input has no numbers and says why in `refused`, in the words of the dead-letter topic. baseline: how
    far the patient's typical beat was known; null where the model does not use it.
    """

    record: str
    sample: int
    annotation: str
    nse: float | None
    distance: float | None
    score: float | None
    alert: bool | None
    baseline: Known | None
    refused: str | None


def score_records(
    settings: Settings,
    records: Sequence[Path],
    lead: str | None = None,
    form: Literal["jsonl", "csv"] = "jsonl",
    out: TextIO = sys.stdout,
) -> int:
    """Write one line for each annotated beat of the records and return how many there were.

    records: paths of WFDB records, without suffix. Raises DataError, BundleError and ConfigError.
    """
    loaded = bundle.load(settings.model.bundle)
    threshold = loaded.threshold(settings.alerts.false_alerts_per_hour)
    scorer = Scorer(loaded, settings.model.provider, settings.model.threads)
    write = _csv_writer(out) if form == "csv" else _jsonl_writer(out)
    written = 0
    for path in records:
        gaps = 0
        record = read_wfdb(path, lead)
        for line in scored_beats(scorer, record, threshold, settings.worker.max_batch):
            write(line)
            written += 1
            gaps += line.refused == "not-finite"
        if gaps:
            total = len(record.r_samples)
            log.warning("record %s: %d of %d beats are not scored, the signal has a gap there", path, gaps, total)
    return written


def scored_beats(scorer: Scorer, record: Record, threshold: float, batch: int = 256) -> Iterator[ScoredBeat]:
    """Yield every annotated beat of a record, scored; `batch` bounds what is scored at once."""
    beats = beats_of(record, record.name)
    patients: Patients = {}
    for first in range(0, len(beats), batch):
        refused = {number: refusal(beat) for number, beat in enumerate(beats[first : first + batch], first)}
        fit = [beats[number] for number, error in refused.items() if error is None]
        scored = iter(score_each(fit, scorer, patients))
        for number, error in refused.items():
            sample, symbol = int(record.r_samples[number]), record.symbols[number]
            found = error or next(scored)
            if isinstance(found, MessageError):
                yield ScoredBeat(record.name, sample, symbol, None, None, None, None, None, found.reason)
                continue
            nse, distance, score, baseline = found
            yield ScoredBeat(record.name, sample, symbol, nse, distance, score, score > threshold, baseline, None)


def _jsonl_writer(out: TextIO) -> Callable[[ScoredBeat], None]:
    encode = msgspec.json.Encoder().encode

    def write(line: ScoredBeat) -> None:
        out.write(encode(line).decode() + "\n")

    return write


def _csv_writer(out: TextIO) -> Callable[[ScoredBeat], None]:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(ScoredBeat.__struct_fields__)

    def write(line: ScoredBeat) -> None:
        writer.writerow(msgspec.structs.astuple(line))

    return write
