"""Typical beats on Kafka: a compacted topic, keyed by patient, with the partitions of the beat topic.

    partition taken ─▶ load ─▶ its beats are scored, and learned from ─▶ due: saved with what the batch publishes
    partition given away, or stop ─▶ unsaved: the rest is saved first, so that the next worker goes on where this ended

A patient is saved once in SAVE_EVERY_S of its beats, and before its partition goes. So a crash may cost the last
SAVE_EVERY_S of slow change, and a new patient's first beats; a rebalance or a stop costs nothing. A record without a
value (a tombstone) is an operator's wish to forget the patient: workers hear it before the next batch.

A patient silent for KEPT_S, or of whom nothing was learned, for `forget_s`, is forgotten: in memory, and on the topic
when a partition is taken, or every stay there ever was would be read again each time. There silent is who is left
behind by others of the partition both in the time of the beats and in that of writing: neither a sender's wrong clock,
nor beats replayed from the past, nor an outage of the workers is silence. The tombstone that then goes with the next
batch bears a header, and workers do not hear it: the patient may be back.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from ecgwatch import cluster, kafka, messages, patients, saved
from ecgwatch.batch import Record
from ecgwatch.beats import Bedside
from ecgwatch.config import Settings
from ecgwatch.errors import DataError, MessageError
from ecgwatch.logs import log, printable, who
from ecgwatch.messages import VERSION, BaselineMessage
from ecgwatch.patients import Patient, Patients

SAVE_EVERY_S = 60.0
KEPT_S = 7 * 86_400.0  # who is back within a week is judged by what was known, until learned anew (`patients`)
SAY_AGAIN_S = 60.0
_READ_AT_ONCE = 500
_READ_TIMEOUT_S = 1.0
_STALLED_S = 30.0
_SILENT = ("ecgwatch-silent", b"1")  # header of a tombstone that is a worker's, not an operator's
_TOMBSTONES_AT_ONCE = 500  # that go with one batch
_BLOCKS = "▁▂▃▄▅▆▇█"


class _Kept(NamedTuple):
    """The last value of a key, and when it was written, ms since 1970."""

    value: bytes | None
    written_ms: int


class Baselines:
    """What is known of the patients of this worker's partitions; used from one thread at a time."""

    def __init__(self, settings: Settings, contract: Bedside, clock: Callable[[], float] = time.monotonic) -> None:
        self.patients: Patients = {}
        self._settings = settings
        self._topic = settings.topics.baselines
        self._contract = contract
        self._clock = clock
        self._consumer = Consumer(kafka.reader_settings(settings))
        self._partition_of: dict[str, int] = {}
        self._saved_ms: dict[str, dict[str, int]] = {}  # of each lead the newest beat that is in what was saved
        self._heard: dict[int, int] = {}  # of each partition, the offset where reading goes on
        self._silent: list[Record] = []  # tombstones to be published
        self._reset: list[Record] = []  # an operator's, once more: a save on its way may have followed the first
        self._busy_s: dict[str, float] = {}  # when a patient's beats came last, the longest silent first
        self._say_again_s = -math.inf
        self._away_s: dict[str, float] = {}  # the same, of learned patients who were silent for `forget_s`

    def load(self, partition: int) -> None:
        """Read what is known of a partition's patients.

        Raises KafkaException where the broker does not say, BrokerError where the topic has too few partitions.
        """
        try:
            kept, self._heard[partition] = _read(self._settings, partition)
        except KafkaException:
            cluster.check_partitions(self._consumer, self._settings)  # the beats' may have been added to
            raise
        self._consumer.assign([TopicPartition(self._topic, number, at) for number, at in self._heard.items()])
        read = {
            name: saved.from_message(message, self._contract)
            for name, one in kept.items()
            if (message := _decoded(name, one.value)) is not None
        }
        newest_ms = max(map(_newest, read.values()), default=0)
        written_ms = max((kept[name].written_ms for name in read), default=0)
        silent = 0
        for name, leads in read.items():
            longest_ms = 1000 * self._kept_s(leads)
            if newest_ms - _newest(leads) > longest_ms and written_ms - kept[name].written_ms > longest_ms:
                self._silent.append(Record(self._topic, name.encode(), None, (_SILENT,), partition))
                silent += 1
                continue
            if name in self.patients and _newest(self.patients[name]) >= _newest(leads):
                continue  # the patient's key once fell into this partition, and that was left behind
            self.patients[name] = leads
            self._saved_ms[name] = _newest_of_each(leads)
            self._partition_of[name] = partition
            self._busy_s[name] = self._clock()
        if read:
            log.info("partition %d: typical beats of %d patients read", partition, len(read) - silent)
        if silent:
            log.info("partition %d: %d patients were silent for too long and are forgotten", partition, silent)

    def hear(self) -> None:
        """Forget the patients that an operator has reset since."""
        for record in self._consumer.consume(_READ_AT_ONCE, timeout=0) if self._heard else ():
            if record.error() is not None:
                continue
            self._heard[record.partition() or 0] = (record.offset() or 0) + 1
            if record.value() or _SILENT in (record.headers() or ()):
                continue
            if (key := record.key()) is not None:
                patient = key.decode("utf-8", "replace")
                self.patients.pop(patient, None)
                self._saved_ms.pop(patient, None)
                self._reset.append(Record(self._topic, key, None, (_SILENT,), record.partition() or 0))
                log.info("a patient's typical beat was reset; it is learned again")

    def due(self, partition_of: Mapping[str, int]) -> list[Record]:
        """Return what is to be saved after a batch; partition_of: of the patients that it held."""
        self._partition_of |= partition_of
        self._say_stalled_times(partition_of)
        self._drop_silent(partition_of)
        tombstones, self._silent = self._silent[:_TOMBSTONES_AT_ONCE], self._silent[_TOMBSTONES_AT_ONCE:]
        return [
            *self._take_reset(),
            # whoever is back in the partition is saved there anew, before or after
            *(one for one in tombstones if one.key and self._partition_of.get(one.key.decode()) != one.partition),
            *(self._record(patient) for patient in partition_of if self._is_due(patient)),
        ]

    def _say_stalled_times(self, busy: Iterable[str]) -> None:
        """Say, once a minute and of one of them, whose times of R cannot be right: nobody else would notice."""
        if (now := self._clock()) < self._say_again_s:
            return
        for patient in busy:
            if any(known.stalled >= patients.STALLED_BEATS for known in self.patients.get(patient, {}).values()):
                self._say_again_s = now + SAY_AGAIN_S
                log.warning(
                    "%s: the times of R of %d beats in a row do not go on as their RR intervals do: they come again, "
                    "stand still, or are not in milliseconds; of such beats no typical beat is learned",
                    who(patient, self._settings.logs),
                    patients.STALLED_BEATS,
                )
                return

    def _take_reset(self) -> list[Record]:
        taken, self._reset = self._reset, []
        return taken

    def _is_due(self, patient: str) -> bool:
        """Whether of any lead a minute is not saved: one whose clock is ahead must not keep the others waiting."""
        saved_ms = self._saved_ms.get(patient, {})
        return any(
            abs(known.last_ms - saved_ms.get(lead, known.first_ms)) >= SAVE_EVERY_S * 1000
            for lead, known in self.patients.get(patient, {}).items()
        )

    def _drop_silent(self, busy: Iterable[str]) -> None:
        """Keep no patient in memory for longer than `_kept_s`."""
        now = self._clock()
        for patient in busy:
            self._away_s.pop(patient, None)
            self._busy_s.pop(patient, None)
            self._busy_s[patient] = now
        for patient in _silent_for(self._contract.forget_s, self._busy_s, now):
            since = self._busy_s.pop(patient)
            if self._kept_s(self.patients.get(patient, {})) == KEPT_S:
                self._away_s[patient] = since
            else:
                self._drop(patient)
        for patient in _silent_for(KEPT_S, self._away_s, now):
            del self._away_s[patient]
            self._drop(patient)

    def _drop(self, patient: str) -> None:
        for of_one in (self.patients, self._saved_ms, self._partition_of):
            of_one.pop(patient, None)

    def _kept_s(self, leads: Mapping[str, Patient]) -> float:
        """For how long what is known of a silent patient is of use."""
        return KEPT_S if any(known.learned for known in leads.values()) else self._contract.forget_s

    def unsaved(self) -> list[Record]:
        """Return what was learned since it was saved.

        A patient first seen in a batch that failed has no partition yet; those beats come again.
        """
        return self._take_reset() + [
            self._record(patient)
            for patient, leads in self.patients.items()
            if leads and patient in self._partition_of and _newest_of_each(leads) != self._saved_ms.get(patient)
        ]

    def give_back(self) -> None:
        """Forget all: the partitions are another worker's."""
        self._silent.clear()
        self._reset.clear()
        for of_one in (self.patients, self._partition_of, self._saved_ms, self._heard, self._busy_s, self._away_s):
            of_one.clear()
        self._consumer.unassign()

    def _record(self, patient: str) -> Record:
        leads = self.patients[patient]
        self._saved_ms[patient] = _newest_of_each(leads)
        value = messages.encode(saved.to_message(patient, leads, self._contract))
        return Record(self._topic, patient.encode(), value, partition=self._partition_of[patient])


def _newest(leads: Mapping[str, Patient]) -> int:
    return max((known.last_ms for known in leads.values()), default=0)


def _newest_of_each(leads: Mapping[str, Patient]) -> dict[str, int]:
    return {lead: known.last_ms for lead, known in leads.items()}


def _silent_for(longest_s: float, since_s: Mapping[str, float], now_s: float) -> list[str]:
    """Return who is silent for longer; since_s: in this order."""
    return list(takewhile(lambda patient: now_s - since_s[patient] > longest_s, since_s))


def show(settings: Settings, patient: str) -> list[messages.LeadBaseline]:
    """Return what the topic holds of a patient, of each lead; raises DataError where it is nothing."""
    found = _find(settings, patient).values()
    return max(found, key=lambda leads: max((lead.last_ms for lead in leads), default=0))


def describe(lead: messages.LeadBaseline) -> str:
    """Return a lead's typical beat as a picture of one line, and what is known of it."""
    newest = datetime.fromtimestamp(lead.last_ms / 1000, UTC).isoformat(timespec="seconds")
    said = f"{printable(lead.lead)}: {lead.known}, {lead.beats} beats, the newest of {newest}"
    if lead.typical is None:
        return said
    typical = np.frombuffer(lead.typical, "<f4")
    low, span = float(typical.min()), max(float(np.ptp(typical)), 1e-3)
    picture = "".join(_BLOCKS[min(7, int(8 * (value - low) / span))] for value in typical[::2].tolist())
    return f"{said}\n  {picture}  {span:.2f} mV, usual deviation {100 * lead.deviation:.1f} %"


def reset(settings: Settings, patient: str) -> None:
    """Make the workers forget a patient; raises DataError where nothing is known of it."""
    refused: list[KafkaError] = []
    producer = Producer(kafka.producer_settings(settings) | {"message.timeout.ms": int(_STALLED_S * 1000)})
    for partition in _find(settings, patient):
        producer.produce(
            settings.topics.baselines,
            key=patient.encode(),
            value=None,
            partition=partition,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    if producer.flush(_STALLED_S) or refused:
        raise kafka.problem(settings, refused[0] if refused else KafkaError(KafkaError._TIMED_OUT))


def _find(settings: Settings, patient: str) -> dict[int, list[messages.LeadBaseline]]:
    """Return a patient's leads in each partition that holds the name: it may have fallen into another one before.

    Raises DataError where none does.
    """
    cluster.wait_for_broker(settings)
    topic = settings.topics.baselines
    found = {}
    try:
        for partition in _partitions(settings):
            kept = _read(settings, partition)[0].get(patient)
            if kept is not None and (message := _decoded(patient, kept.value)) is not None:
                found[partition] = message.leads
    except KafkaException as error:
        raise kafka.problem(settings, error.args[0]) from None
    if not found:
        raise DataError(f"topic {topic} holds no patient of that name; one is saved a minute after its first beat")
    return found


def _partitions(settings: Settings) -> list[int]:
    with _reader(settings) as consumer:
        topic = consumer.list_topics(settings.topics.baselines, timeout=kafka.REQUEST_TIMEOUT_S)
        described = topic.topics[settings.topics.baselines]
        if described.error:
            raise KafkaException(described.error)
        return sorted(described.partitions)


@contextmanager
def _reader(settings: Settings) -> Iterator[Consumer]:
    """A consumer for one reading: one that has read another partition waits for that one's long poll first."""
    consumer = Consumer(kafka.reader_settings(settings))
    try:
        yield consumer
    finally:
        consumer.close()


def _read(settings: Settings, partition: int) -> tuple[dict[str, _Kept], int]:
    """Return the last value of each key that a partition holds now, and the offset after the last record.

    Raises KafkaException where the broker does not answer.
    """
    topic = settings.topics.baselines
    kept: dict[str, _Kept] = {}
    with _reader(settings) as consumer:
        low, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=kafka.REQUEST_TIMEOUT_S)
        consumer.assign([TopicPartition(topic, partition, low)])
        heard = time.monotonic()
        while low < end:
            # no more than there can be: librdkafka waits for as many as are asked for
            records = consumer.consume(min(_READ_AT_ONCE, end - low), timeout=_READ_TIMEOUT_S)
            heard = time.monotonic() if records else heard
            for record in records:
                if (error := record.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    low = end  # what is missing up to there was compacted away
                    continue
                low = (record.offset() or 0) + 1
                if (key := record.key()) is not None:
                    kept[key.decode("utf-8", "replace")] = _Kept(record.value(), record.timestamp()[1])
            if time.monotonic() - heard > _STALLED_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return kept, low


def _decoded(patient: str, value: bytes | None) -> BaselineMessage | None:
    """A record that cannot be read counts as none, a lead that cannot be as not there: it is learned again."""
    if not value:
        return None
    try:
        message = _checked(patient, value)
    except MessageError as error:
        log.warning("a typical beat cannot be read and is learned again: %s", error)
        return None
    sound = [lead for lead in message.leads[: patients.MAX_LEADS] if saved.sound(lead)]
    if damaged := len(message.leads) - len(sound):
        log.warning("of a patient %d typical beats cannot be read and are learned again", damaged)
    return msgspec.structs.replace(message, leads=sound)


def _checked(patient: str, value: bytes) -> BaselineMessage:
    """Decode a record; raises MessageError whatever it holds, or each worker of its partition would end at it."""
    try:
        message = messages.decode_baseline(value)
    except msgspec.MsgspecError as error:
        raise MessageError("baseline", str(error).partition("'")[0][:200]) from None  # what is quoted is content
    except (UnicodeDecodeError, RecursionError):
        raise MessageError("baseline", "it is no JSON in UTF-8, or too deeply nested") from None
    if message.version != VERSION:
        raise MessageError("baseline", f"version {message.version} is not known here")
    if message.patient != patient:
        raise MessageError("baseline", "its patient is another than its key")
    return message
