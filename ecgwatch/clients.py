"""The two small clients around the worker: replay a record onto the beat topic, follow the alert topic."""

import json
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ecgwatch import cluster, kafka
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError, DataError, MessageError
from ecgwatch.logs import log, printable
from ecgwatch.messages import (
    CONTENT_TYPE,
    JSON,
    MSGPACK,
    UNREADABLE,
    VERSION,
    Alert,
    Beat,
    Versioned,
    decode_alert,
    decode_beats,
    encode_beats,
    refusal,
)
from ecgwatch.records import AFTER_S, beats_of, read_wfdb

FORMS = {"binary": MSGPACK, "json": JSON}
REPEATS_KNOWN = 10_000  # ids remembered; a repeat follows its original within a rebalance or a restart
_POLL_S = 0.2  # how long Ctrl-C may have to wait for librdkafka
_LOOK_S = 5.0  # how often a follower asks whether a broker answers, and for partitions that were added
_ANSWER_S = 1.0
_FLUSH_S = 30.0
_MAX_IN_FLIGHT = 10_000  # beats given to librdkafka and not yet acknowledged
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,  # these three: the client tries again
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError.GROUP_AUTHORIZATION_FAILED,  # librdkafka asks for the group's coordinator, though no group is used
}
_ROW = "{:<23}  {:<16}  {:<5}  {:>7}  {:>7}  {}"


def replay(
    settings: Settings,
    record: Path,
    *,
    speed: float = 1.0,
    patient: str | None = None,
    lead: str | None = None,
    form: Literal["binary", "json"] = "binary",
    start_ms: int | None = None,
) -> int:
    """Publish the annotated beats of a WFDB record with their true timing and return how many.

    A beat goes out when its window is complete, 1.75 s after its R peak; one that no model can take, as beside a gap of
    the signal, is left out. record: path without suffix. speed: times real time; infinity is as fast as the broker
    takes them. patient: pseudonym and Kafka key; None is the record's name. start_ms: time of the record's first
    sample, ms since 1970; None is now.
    Raises DataError; BrokerError or AccessError where the broker is away, refuses, or has no such topic.
    """
    data = read_wfdb(record, lead)
    beats = beats_of(data, patient or data.name, time.time_ns() // 1_000_000 if start_ms is None else start_ms)
    due_s = [(sample / data.fs_hz + AFTER_S) / speed for sample in data.r_samples.tolist()]
    refused = [refusal(beat) for beat in beats]
    due = [one for one, error in zip(zip(due_s, beats, strict=True), refused, strict=True) if error is None]
    if due:
        _check_names(due[0][1])
    for reason, count in Counter(error.reason for error in refused if error is not None).items():
        log.warning("record %s: %d of %d beats are left out: %s", record, count, len(beats), reason)
    with _progress(data.name, len(due)) as advance:
        return _publish(settings, due, FORMS[form], advance)


def _check_names(beat: Beat) -> None:
    """Raise DataError where a worker would refuse each beat for the names that all of them bear."""
    try:
        decode_beats(encode_beats([beat]), beat.patient.encode())
    except MessageError as error:
        raise DataError(f"no worker would take these beats: {error}; choose names with --patient, --lead") from None


def follow(
    settings: Settings,
    *,
    form: Literal["table", "jsonl"] = "table",
    from_beginning: bool = False,
    out: TextIO = sys.stdout,
) -> None:
    """Print alerts as they come, until interrupted; repeats are dropped.

    Raises BrokerError or AccessError where the broker is away at the start, refuses, or has no such topic.
    """
    show = table(out) if form == "table" else json_lines(out)
    for alert in alerts(settings, from_beginning=from_beginning):
        show(alert)


def alerts(settings: Settings, *, from_beginning: bool = False) -> Iterator[Alert]:
    """Yield alerts as they come, for ever, each id once; errors as for `follow`.

    Reads all partitions without a consumer group, those too that are added meanwhile: every caller sees every alert. A
    record that is no alert is skipped, with a warning, and so are alerts of a newer wire version, which this reader
    would misunderstand; that is said once of each version. That no broker answers is said, and when one does again;
    what was written meanwhile comes then.
    """
    topic = settings.topics.alerts
    cluster.wait_for_broker(settings)
    errors = kafka.Errors()
    options = {
        "group.id": settings.kafka.client_id,  # demanded by librdkafka, not used: partitions are assigned here
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",  # where retention was quicker, or the topic was made anew: all that there is
        "error_cb": errors,
        "fetch.wait.max.ms": 100,
    }
    consumer = Consumer(kafka.client_settings(settings) | options)
    seen: OrderedDict[str, None] = OrderedDict()
    newer: set[int] = set()
    try:
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        numbers = _partitions(consumer, settings, topic)
        consumer.assign([TopicPartition(topic, number, start) for number in numbers])
        lookout = _Lookout(consumer, settings, topic, set(numbers))
        while True:
            lookout.look()
            message = consumer.poll(_POLL_S)
            if errors.refusal:
                raise kafka.refused(settings, errors.refusal)
            alert = _alert(settings, message, newer) if message else None
            if alert is None or alert.id in seen:
                continue
            seen[alert.id] = None
            if len(seen) > REPEATS_KNOWN:
                seen.popitem(last=False)
            yield alert
    finally:
        consumer.close()


class _Lookout:
    """Asks a follower's topic, every _LOOK_S, whether its partitions can be read, and takes those that are new."""

    def __init__(self, consumer: Consumer, settings: Settings, topic: str, numbers: set[int]) -> None:
        self._consumer = consumer
        self._brokers = settings.kafka.brokers
        self._topic = topic
        self._numbers = numbers
        self._next_s = time.monotonic() + _LOOK_S
        self._away_since_s: float | None = None

    def look(self) -> None:
        """Where it is time, take new partitions from their beginning, and say that alerts cannot come, or can again."""
        if time.monotonic() < self._next_s:
            return
        try:
            found = self._consumer.list_topics(self._topic, timeout=_ANSWER_S).topics[self._topic].partitions
        except KafkaException:
            found = {}
        self._next_s = time.monotonic() + _LOOK_S
        if added := sorted(found.keys() - self._numbers):
            self._numbers.update(added)
            self._consumer.incremental_assign([TopicPartition(self._topic, n, OFFSET_BEGINNING) for n in added])
            log.info("topic %s has new partitions, read from now on: %s", self._topic, ", ".join(map(str, added)))
        led = {number for number, partition in found.items() if partition.leader >= 0}
        self._say(sorted(self._numbers - led))

    def _say(self, silent: list[int]) -> None:
        now = time.monotonic()
        if silent and self._away_since_s is None:
            self._away_since_s = now
            log.warning(
                "broker %s does not answer for partitions %s of topic %s: their alerts are NOT seen until it does",
                self._brokers,
                ", ".join(map(str, silent)),
                self._topic,
            )
        elif not silent and self._away_since_s is not None:
            log.warning("broker answers again after %.0f s: what came meanwhile is read now", now - self._away_since_s)
            self._away_since_s = None


def _publish(
    settings: Settings, due: Iterable[tuple[float, Beat]], content_type: str, advance: Callable[[], None]
) -> int:
    """Publish each beat at its time, seconds from now; return when the broker has acknowledged all."""
    topic = settings.topics.beats
    cluster.wait_for_broker(settings)
    errors = kafka.Errors()
    refused: list[KafkaError] = []
    producer = Producer(kafka.producer_settings(settings) | {"linger.ms": 5, "error_cb": errors})
    _partitions(producer, settings, topic)

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)
        advance()

    def check() -> None:
        if errors.refusal:
            raise kafka.refused(settings, errors.refusal)
        if refused:
            raise kafka.problem(settings, refused[0])

    published = 0
    begin = time.monotonic()
    try:
        for due_s, beat in due:
            while (left_s := begin + due_s - time.monotonic()) > 0 or len(producer) > _MAX_IN_FLIGHT:
                producer.poll(min(max(left_s, 0.01), _POLL_S))
                check()
            producer.produce(
                topic,
                key=beat.patient.encode(),
                value=encode_beats([beat], content_type),
                headers={CONTENT_TYPE: content_type},
                on_delivery=delivered,
            )
            producer.poll(0)
            published += 1
    finally:  # Ctrl-C too: what was begun is finished
        left = producer.flush(_FLUSH_S)
    check()
    if left:
        raise BrokerError(f"{left} of {published} beats were not acknowledged by {settings.kafka.brokers}")
    return published


def _partitions(client: Consumer | Producer, settings: Settings, topic: str) -> list[int]:
    """Return the partitions of a topic; raises BrokerError or AccessError where it cannot be used."""
    try:
        found = client.list_topics(topic, timeout=kafka.REQUEST_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise kafka.problem(settings, error.args[0]) from None
    if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise BrokerError(f"no topic {topic} on {settings.kafka.brokers}: create it, or see [topics]")
    if found.error is not None:
        raise kafka.problem(settings, found.error)
    return sorted(found.partitions)


def _alert(settings: Settings, message: Message, newer: set[int]) -> Alert | None:
    """Return the alert in a record; None, with a warning, where there is none.

    newer: versions above this reader's that were met, and said, before.
    """
    if (error := message.error()) is not None:
        if error.retriable() or error.code() in _PASSING:
            return None
        raise kafka.problem(settings, error)
    place = f"{message.topic()} [{message.partition()}] at offset {message.offset()}"
    value = message.value() or b""
    try:
        version = msgspec.json.decode(value, type=Versioned).version
        if version <= VERSION:
            return decode_alert(value)
    except UNREADABLE:
        log.warning("skipped %s: the record is no alert", place)
        return None
    if version not in newer:
        newer.add(version)
        log.warning(
            "skipped %s: an alert of version %d, this reader knows %d: such alerts are NOT shown, update ecgwatch",
            place,
            version,
            VERSION,
        )
    return None


def json_lines(out: TextIO) -> Callable[[Alert], None]:
    """Return what prints an alert as one line of JSON, in ASCII: whatever the name, no terminal obeys or lacks it."""

    def show(alert: Alert) -> None:
        line = json.dumps(msgspec.to_builtins(alert)).replace("\x7f", "\\u007f")
        print(line, file=out, flush=True)

    return show


def table(out: TextIO) -> Callable[[Alert], None]:
    """Print a header and return what prints an alert as a row: a table that can be scrolled, piped and kept."""
    console = Console(file=out, highlight=False)
    console.print(Text(_ROW.format("time of R (UTC)", "patient", "lead", "score", "above", "reason"), style="bold"))

    def show(alert: Alert) -> None:
        when = datetime.fromtimestamp(alert.r_time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        score, threshold = f"{alert.score:.2f}", f"{alert.threshold:.2f}"
        row = _ROW.format(when, alert.patient, alert.lead, score, threshold, alert.reason)
        console.print(Text(printable(row)), soft_wrap=True)

    return show


@contextmanager
def _progress(name: str, beats: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr, where that is a terminal; yields what counts one beat."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"beats of {name}", total=beats)
        yield lambda: bar.advance(task)
