"""Records of the beat topic in, records of the other topics out: one batch, as a plain function.

    value ─▶ decode ─▶ prepare ─▶ score ─▶ Score, Alert
               └──────────┴─▶ dead letter: what cannot be scored, whole, with the reason

Nothing here knows Kafka's clients: the worker calls it in a thread, tests call it with lists.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ecgwatch import alerts, logs, messages
from ecgwatch.bundle import Bundle
from ecgwatch.errors import MessageError, internal
from ecgwatch.messages import CONTENT_TYPE, VERSION, Beat, Score
from ecgwatch.patients import Patients
from ecgwatch.scorer import Scored, Scorer, score_each

# What a dead letter shrinks to when the broker refuses it whole: small enough for any sensible message.max.bytes.
PREFIX_BYTES = 64 * 1024
MAX_CUT_KEY_BYTES = 1024
MAX_CONTENT_TYPE = 100  # characters that a dead letter takes over: a header cannot be cut when the broker refuses it
PATIENTS_REMEMBERED = 100_000

Place = tuple[int, int]  # of a beat: its message's position in the batch, its number in the message


@dataclass(frozen=True, slots=True)
class Received:
    """One record of the beat topic; content_type: None where it has no such header."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = -1  # -1: that of the key


@dataclass(frozen=True, slots=True)
class Rules:
    """What every batch is scored with; topics: names, `scores` empty for none."""

    scorer: Scorer
    bundle: Bundle
    threshold: float
    scores: str
    alerts: str
    dead_letters: str
    max_batch: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one batch led to; partition_of: where each patient of the batch was seen (the last one)."""

    records: list[Record]
    scored: int
    alerts: int
    dead_letters: int
    partition_of: dict[str, int]


def process(batch: Sequence[Received], rules: Rules, patients: Patients) -> Outcome:
    """Score the beats of a batch and say what to publish, in the order of the batch.

    patients: what is known of them; it grows with the beats. Raises ScoringError where the model fails; then nothing of
    the batch may be committed.
    """
    outputs: list[list[Record]] = [[] for _ in batch]
    beats: list[Beat] = []
    places: list[Place] = []  # of each beat
    refused: dict[int, dict[int, MessageError]] = {}  # by message, then by beat
    partition_of: dict[str, int] = {}
    for position, received in enumerate(batch):
        try:
            decoded = _decode(received)
        except MessageError as error:
            outputs[position].append(dead_letter(received, error, rules.dead_letters))
            continue
        for number, one in enumerate(decoded):
            if isinstance(one, MessageError):
                refused.setdefault(position, {})[number] = one
            else:
                beats.append(one)
                places.append((position, number))
                partition_of[one.patient] = received.partition
    scored = alerted = 0
    for first in range(0, len(beats), rules.max_batch):  # one message may hold more beats than a batch should
        part = slice(first, first + rules.max_batch)
        found = score_each(beats[part], rules.scorer, patients)
        for (position, number), beat, answer in zip(places[part], beats[part], found, strict=True):
            if isinstance(answer, MessageError):
                refused.setdefault(position, {})[number] = answer
                continue
            records = list(_answers(beat, answer, rules))
            outputs[position] += records
            scored += 1
            alerted += any(record.topic == rules.alerts for record in records)
    for position, errors in refused.items():
        outputs[position].append(dead_letter(batch[position], _summary(errors), rules.dead_letters))
    records = [record for output in outputs for record in output]
    dead = sum(record.topic == rules.dead_letters for record in records)
    return Outcome(records, scored, alerted, dead, partition_of)


def _decode(received: Received) -> list[Beat | MessageError]:
    """As messages.decode_beats; where it fails in a way that nobody foresaw, the message is refused."""
    try:
        return messages.decode_beats(received.value, received.key, received.content_type)
    except (MessageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one record must not end the worker, again after each restart
        logs.failed(error)
        raise internal(error) from None


def _answers(beat: Beat, scored: Scored, rules: Rules) -> Iterator[Record]:
    key = beat.patient.encode()
    nse, distance, score, baseline = scored
    alert = alerts.alert(beat, nse, distance, score, baseline, rules.threshold, rules.bundle)
    if rules.scores:
        message = Score(
            version=VERSION,
            id=beat.id,
            patient=beat.patient,
            lead=beat.lead,
            r_time_ms=beat.r_time_ms,
            nse=nse,
            distance=distance,
            score=score,
            threshold=rules.threshold,
            alert=alert is not None,
            baseline=baseline,
            model=rules.bundle.sha256,
        )
        yield Record(rules.scores, key, messages.encode(message))
    if alert is not None:
        yield Record(rules.alerts, key, messages.encode(alert))


def dead_letter(received: Received, error: MessageError, topic: str) -> Record:
    """Return the dead letter of a message: key, value and content type as they came, the reason in the headers."""
    headers = {
        "ecgwatch-reason": error.reason,
        "ecgwatch-error": str(error),
        "ecgwatch-topic": received.topic,
        "ecgwatch-partition": str(received.partition),
        "ecgwatch-offset": str(received.offset),
    }
    if received.content_type is not None:  # whoever repairs and sends it again must know which form it has
        headers[CONTENT_TYPE] = received.content_type[:MAX_CONTENT_TYPE]
    return Record(topic, received.key, received.value, tuple((name, text.encode()) for name, text in headers.items()))


def cut(letter: Record) -> Record:
    """Return a dead letter that the broker refused as too large with the beginning of its value only.

    Length and SHA-256 of the whole stand in the headers; a key of more than 1 KiB is left out.
    """
    value = letter.value or b""
    whole = (
        ("ecgwatch-length", str(len(value)).encode()),
        ("ecgwatch-sha256", hashlib.sha256(value).hexdigest().encode()),
    )
    key = letter.key if len(letter.key or b"") <= MAX_CUT_KEY_BYTES else None
    return replace(letter, key=key, value=value[:PREFIX_BYTES], headers=letter.headers + whole)


def _summary(errors: dict[int, MessageError]) -> MessageError:
    """One error for the beats of a message that were refused: the first one's reason, and which beats."""
    first = min(errors)
    error = errors[first]
    others = f" (and {len(errors) - 1} more of its beats)" if len(errors) > 1 else ""
    return MessageError(error.reason, f"beat {first}{others}: {error}")


class PatientPartitions:
    """Notices a patient whose beats come from two partitions: a producer with the wrong partitioner.

    Remembers the patients seen last, a bounded number, and reports each once.
    """

    def __init__(self, limit: int = PATIENTS_REMEMBERED) -> None:
        self._limit = limit
        self._seen: OrderedDict[str, int] = OrderedDict()  # -1: reported

    def moved(self, partition_of: dict[str, int]) -> list[tuple[str, int, int]]:
        """Take what a batch saw; return (patient, partition before, partition now) of those that moved."""
        found = []
        for patient, partition in partition_of.items():
            before = self._seen.pop(patient, partition)
            if before not in (partition, -1):
                found.append((patient, before, partition))
                partition = -1
            self._seen[patient] = -1 if before == -1 else partition
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return found
