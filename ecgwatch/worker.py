"""`ecgwatch worker`: beats from Kafka, scored, alerts to Kafka; the only module that imports faust.

    consumer ─▶ queue (bounded) ─▶ stream ─▶ agent: a batch is what arrived while the last one was scored ─▶ batches.py

Faust runs the consumer, the group and the agent. Three things are done here instead, each for a measured reason:
- Commits name the offsets of the batch. Faust's own bookkeeping of acknowledgements drops what is acknowledged and
  uncommitted when partitions are revoked (2-9 % repeats), and stops for ever at a gap in the offsets.
- What one fetch brought of a partition travels as one event: Faust makes two tasks of each event and waits for them,
  two thirds of the CPU time that a message of its own took from the client to the agent.
- Signals, exit codes and log set-up: faust's command line ends with a traceback where one line is due, and after a
  failed batch it restarts the agent and scores on with its commits frozen.
"""

import asyncio
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import confluent_kafka
import faust
from aiokafka import ConsumerRecord
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from faust.auth import SASLCredentials, SSLCredentials
from faust.sensors import Monitor
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP, EventT, Message
from faust.types.tuples import ConsumerMessage
from mode.utils.queues import ThrowableQueue
from threadpoolctl import threadpool_limits

from ecgwatch import bundle as bundles
from ecgwatch import cluster, config, kafka, logs
from ecgwatch.batch import Rules
from ecgwatch.batches import Batches, retrieved
from ecgwatch.beats import Bedside
from ecgwatch.config import Settings
from ecgwatch.errors import AccessError, BrokerError, ConfigError, EcgwatchError
from ecgwatch.group import Group, Partition
from ecgwatch.logs import log
from ecgwatch.output import Publisher
from ecgwatch.scorer import Scorer
from ecgwatch.watchdog import Watchdog

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 4 * 1024 * 1024
CRASH_CHECK_S = 0.5
FETCH_EVERY_S = 0.005  # under load; a fetch costs worker and broker as much CPU as several beats
NEVER_S = 86_400.0
HEADERS_AGAIN_S = 60.0  # between two lines about headers that cannot be read


def run(settings: Settings, make_scorer: Callable[..., Scorer] = Scorer) -> int:
    """Run a worker until SIGTERM or SIGINT; return 0 when everything in flight was committed.

    make_scorer: called with bundle, provider and threads.
    Raises EcgwatchError where the worker cannot start or cannot go on.
    """
    logs.set_up(settings.logs)
    watchdog = Watchdog(settings)
    stop = Stop(watchdog)
    # BLAS would spread the resampling's small products over all cores and spin there: up to three times the CPU
    with stop.on_signals(), threadpool_limits(settings.model.threads or None, user_api="blas"):
        rules = _rules(settings, make_scorer)
        cluster.wait_for_broker(settings, lambda: stop.requested)
        if not stop.requested:
            cluster.require_topics(settings, isinstance(rules.bundle.manifest.contract, Bedside))
            cluster.wait_for_group(settings, lambda: stop.requested)
        if not stop.requested:
            _say_start(settings, rules)
            watchdog.start()
            with tempfile.TemporaryDirectory(prefix="ecgwatch-") as folder:
                asyncio.run(_serve(settings, rules, watchdog, stop, Path(folder)))
        watchdog.close()
    log.info("stopped")
    return 0


def _rules(settings: Settings, make_scorer: Callable[..., Scorer]) -> Rules:
    bundle = bundles.load(settings.model.bundle)
    return Rules(
        scorer=make_scorer(bundle, settings.model.provider, settings.model.threads),
        bundle=bundle,
        threshold=bundle.threshold(settings.alerts.false_alerts_per_hour),
        scores=settings.topics.scores,
        alerts=settings.topics.alerts,
        dead_letters=settings.topics.dead_letters,
        max_batch=settings.worker.max_batch,
    )


def _say_start(settings: Settings, rules: Rules) -> None:
    log.info(
        "scoring topic %s for group %s: model %s (%s) on %s, alerts above %.3f",
        settings.topics.beats,
        settings.kafka.group,
        rules.bundle.manifest.name,
        rules.bundle.sha256[:12],
        rules.scorer.provider,
        rules.threshold,
    )


class Stop:
    """The wish to stop, from a signal: the first one is heard, the second ends the process at once."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.requested = False
        self._watchdog = watchdog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT within the block; elsewhere than in the main thread nobody can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def wait(self) -> None:
        """Return when somebody wished to stop."""
        self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()
        if not self.requested:
            await self._event.wait()

    def _heard(self, number: int, frame: object) -> None:
        if self.requested:
            os._exit(128 + number)  # as shells report it
        self.requested = True
        self._watchdog.stopping()
        if self._loop is not None and self._event is not None:
            self._loop.call_soon_threadsafe(self._event.set)


async def _serve(settings: Settings, rules: Rules, watchdog: Watchdog, stop: Stop, folder: Path) -> None:
    """Start, work until told to stop or something failed, stop."""
    publisher = Publisher(settings)
    batches = Batches(settings, rules, publisher)
    app = build_app(settings, batches, watchdog, folder)
    starting = asyncio.create_task(app.start())
    starting.add_done_callback(retrieved)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_end_of(app)), batches.failed]
    beside = [
        asyncio.create_task(batches.commit_published(_committer(app))),
        asyncio.create_task(batches.summaries()),
    ]
    try:
        await asyncio.wait([starting, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if (error := starting.exception()) is not None:
                raise BrokerError(f"the Kafka client did not start: {type(error).__name__}: {error}")
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        _raise_failure(settings, app, batches)
        log.info("stopping: finishing what is in flight")
        await batches.finish()
        if batches.failed.done():
            _raise_failure(settings, app, batches)
    except EcgwatchError as failure:
        watchdog.stopping(failure.exit_code)
        log.error("failed: %s", failure)
        raise
    finally:
        await batches.finish()
        await app.stop()
        for task in beside:
            task.cancel()
        publisher.close()


def _raise_failure(settings: Settings, app: faust.App, batches: Batches) -> None:
    """Raise what ended the work, if anything did."""
    if (reason := _why_it_ended(app)) is not None:  # whatever else failed failed for that reason
        gave_up = _gave_up(settings, reason)
        batches.fail(gave_up)  # nothing of what is under way can be committed any more
        raise gave_up
    if batches.failed.done():
        batches.failed.result()


async def _end_of(app: faust.App) -> None:
    """Return when Faust's app has ended by itself, or waits for ever."""
    while _why_it_ended(app) is None:
        await asyncio.sleep(CRASH_CHECK_S)


def _why_it_ended(app: faust.App) -> BaseException | None:
    """Return why Faust's app has ended or the group does not let it in; None while all is well.

    When a group refuses a member for good, aiokafka keeps the reason for whoever fetches next and waits until then.
    Faust fetches when it was given partitions: without a look at that reason it would wait for ever.
    """
    if app.crashed:
        return app.crash_reason or RuntimeError("no reason given")
    client: Any = app._consumer and cast(Any, app._consumer)._thread._consumer
    return client and client._coordinator and client._coordinator._pending_exception


def _gave_up(settings: Settings, reason: BaseException) -> EcgwatchError:
    """Return the error that says what the Kafka client ended with, and what to do."""
    number = getattr(reason, "errno", None)  # aiokafka's numbers are Kafka's own
    said = f"the Kafka client gave up: {type(reason).__name__}: {reason}"
    if number == KafkaError.INVALID_SESSION_TIMEOUT:
        asked, taken = settings.kafka.session_timeout_s, cluster.session_limits(settings)
        return ConfigError(f"[kafka] session_timeout_s = {asked:g}: the broker takes {taken}")
    if number == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return BrokerError(
            f"group {settings.kafka.group} is used by another program, which shares out partitions in another way: "
            "end that, or choose another [kafka] group"
        )
    if number in kafka.DENIED:
        return AccessError(f"{said}; user {kafka.user(settings)} needs the ACLs of docs/security.md")
    return BrokerError(said)


def _committer(app: faust.App) -> Callable[[Mapping[Partition, int]], Any]:
    """Return what commits offsets as a member of the group, and tells the partitions it was refused for."""

    async def commit(ends: Mapping[Partition, int]) -> Sequence[int]:
        consumer: Any = app.consumer
        mine = {TP(*partition): end for partition, end in ends.items() if TP(*partition) in consumer.assignment()}
        committed = bool(mine) and await consumer._commit(mine)
        return [number for topic, number in ends if not committed or TP(topic, number) not in mine]

    return commit


class _Consumer(Consumer):
    """Faust's consumer; its messages are whole fetches: all records that one brought of a partition.

    A beat that comes alone is handed on at once, what comes within FETCH_EVERY_S after it together.
    """

    _next_fetch = 0.0
    _headers_said = -HEADERS_AGAIN_S
    _handed_on: tuple[int, dict[TP, int]] = -1, {}  # of a generation of the group: where each partition goes on

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Yield what a fetch brought, a message per partition; its value: aiokafka's records, its offset: the last."""
        await asyncio.sleep(max(0.0, self._next_fetch - time.monotonic()))
        try:
            fetched, active = await self._wait_next_records(timeout)
        except UnicodeDecodeError:
            fetched, active = await self._read_without_headers(), None
        self._next_fetch = time.monotonic() + FETCH_EVERY_S
        generation = self.app.consumer_generation_id  # asked for before a rebalance, it may hold what came after it
        if generation != self._handed_on[0]:
            self._handed_on = generation, {}
        if not fetched or self.should_stop:
            return
        if not self.flow_active:  # a rebalance began meanwhile
            try:
                await self.perform_seek()
            except Exception as error:  # noqa: BLE001 - as Faust does: the next assignment seeks again
                log.debug("not gone back to the committed offsets: %r", error)
            return
        for tp, records in fetched.items():
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return
            if active is None or tp in active:
                self._handed_on[1][TP(*tp)] = records[-1].offset + 1
                yield TP(*tp), _together(TP(*tp), records, generation)

    async def _read_without_headers(self) -> dict[TP, list[ConsumerRecord]]:
        """Return what follows in every partition, read by confluent-kafka, without headers.

        aiokafka cannot read a record with a header whose name is no UTF-8. It ends there each time, and has lost what
        else that fetch brought.
        """
        generation, settings = self.app.consumer_generation_id, cast(_App, self.app).settings
        handed_on = self._handed_on[1] if self._handed_on[0] == generation else {}
        starts = {TP(*tp): handed_on.get(TP(*tp)) for tp in self.assignment()}
        try:
            found = await asyncio.to_thread(_read, settings, starts)
        except KafkaException as error:
            log.warning("beats wait for their records: %s", kafka.problem(settings, error.args[0]))
            await asyncio.sleep(CRASH_CHECK_S)
            return {}
        if generation != self.app.consumer_generation_id:
            return {}  # the partitions are shared out anew
        for tp, (start, records) in found.items():
            # not `seek`, which also notes these records as read, so that Faust would drop them
            await self._seek(tp, records[-1].offset + 1 if records else start)
        if time.monotonic() - self._headers_said >= HEADERS_AGAIN_S:
            self._headers_said = time.monotonic()
            log.warning(
                "a header's name is no UTF-8 in a record at or after %s; records there are read without headers",
                ", ".join(f"offset {start} of partition {tp.partition}" for tp, (start, _) in sorted(found.items())),
            )
        return {tp: records for tp, (_, records) in found.items() if records}


def _read(settings: Settings, starts: Mapping[TP, int | None]) -> dict[TP, tuple[int, list[ConsumerRecord]]]:
    """Return where each partition was read from, and its records as aiokafka hands them on; None: where the group is.

    Raises KafkaException.
    """
    group = Group(settings)
    try:
        unknown = group.offsets(TopicPartition(*tp) for tp, start in starts.items() if start is None)
        known = {(tp.topic, tp.partition): start for tp, start in starts.items() if start is not None}
        known |= {partition: seen.next for partition, seen in unknown.items()}
        found = group.read(known, settings.worker.max_batch)
    finally:
        group.close()
    return {TP(*partition): (start, [*map(_record, found[partition])]) for partition, start in known.items()}


def _record(message: confluent_kafka.Message) -> ConsumerRecord:
    """Return a record, with None for its headers.

    Of a header whose name is no UTF-8 confluent-kafka (2.16) makes a tuple that holds a null pointer.
    """
    kind, timestamp_ms = message.timestamp()
    place = message.topic() or "", message.partition() or 0, message.offset() or 0
    return ConsumerRecord(*place, timestamp_ms, kind, message.key(), message.value(), None, -1, -1, cast(Any, None))


def _together(tp: TP, records: Sequence[Any], generation: int) -> ConsumerMessage:
    last = records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000,
        last.timestamp_type,
        headers=None,
        key=None,
        value=cast(Any, records),
        checksum=None,
        tp=tp,
        generation_id=generation,
    )


class WaitingRoom(ThrowableQueue):
    """The queue of Faust's stream, bounded by the records and bytes in its events.

    Faust's own way of slowing down, which would leave a partition out and look again after a second, is not used:
    the fetcher simply waits while the queue is full.
    """

    def __init__(self, max_records: int, max_bytes: int, **kwargs: Any) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self._records = self._bytes = 0
        super().__init__(**kwargs)

    def full(self) -> bool:
        return self._records >= self._max_records or self._bytes >= self._max_bytes

    def clear(self) -> None:
        super().clear()
        self._records = self._bytes = 0

    def in_pressure_high_state(self, callback: Callable[[], None]) -> bool:
        return False

    def take(self, limit: int, generation: int) -> list[EventT]:
        """Take what waits, at most `limit` records; those fetched before a rebalance are dropped, they come again."""
        taken: list[EventT] = []
        records = size = 0
        while not self.empty() and size < MAX_BATCH_BYTES and records + self._first_length() <= limit:
            event = self.get_nowait()
            if event.message.generation_id == generation:
                taken.append(event)
                records += len(cast(Any, event.value))
                size += _size(event)
        return taken

    def _first_length(self) -> int:
        return len(cast(Any, self)._queue[0].value)

    def _put(self, event: EventT) -> None:
        super()._put(event)
        self._records += len(cast(Any, event.value))
        self._bytes += _size(event)

    def _get(self) -> EventT:
        event = super()._get()
        self._records -= len(cast(Any, event.value))
        self._bytes -= _size(event)
        return event


def _size(event: EventT) -> int:
    return sum(len(record.value or b"") + len(record.key or b"") for record in cast(Any, event.value))


def _batch(first: EventT, room: WaitingRoom, most: int, generation: int) -> list[Any]:
    """Return the records of an event and of what waits behind it, at most `most`; none fetched before a rebalance.

    first: it too may be older, since Faust took it from the room before the rebalance cleared that.
    """
    events = room.take(most - len(cast(Any, first.value)), generation)
    if first.message.generation_id == generation:
        events.insert(0, first)
    return [record for event in events for record in cast(Any, event.value)]


class _App(faust.App):
    logger = logging.getLogger("faust.app")
    settings: Settings

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> WaitingRoom:
        return WaitingRoom(
            maxsize or 0,
            MAX_WAITING_BYTES,
            flow_control=self.flow_control,
            clear_on_resume=clear_on_resume,
        )


class _NoStatistics(Monitor):
    """Faust counts each message in five places; nobody reads it."""

    logger = logging.getLogger("faust.monitor")

    def on_message_in(self, tp: TP, offset: int, message: Any) -> None: ...

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: EventT) -> dict[str, Any] | None: ...

    def on_stream_event_out(self, *args: Any) -> None: ...

    def on_message_out(self, tp: TP, offset: int, message: Any) -> None: ...


def build_app(settings: Settings, batches: Batches, watchdog: Watchdog, folder: Path) -> faust.App:
    """Return the Faust app whose one agent hands batches of the beat topic to `batches`. Needs a running loop."""
    app = _App(
        settings.kafka.group,
        broker=[f"kafka://{address.strip()}" for address in settings.kafka.brokers.split(",")],
        broker_credentials=_credentials(settings),
        broker_client_id=settings.kafka.client_id,
        broker_session_timeout=settings.kafka.session_timeout_s,
        broker_request_timeout=config.SESSION_MAX_S,
        broker_heartbeat_interval=settings.kafka.heartbeat_s,
        broker_max_poll_records=settings.worker.max_batch,
        consumer_metadata_max_age_ms=int(kafka.METADATA_MAX_AGE_S * 1000),
        broker_commit_interval=NEVER_S,  # nothing is left to Faust to commit
        # A new group begins with the oldest beat kept, and so does a partition whose committed offset is gone: with
        # "latest" the beats up to the first commit would be lost without a word.
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=settings.worker.max_waiting,
        stream_wait_empty=False,  # `batches` waits for what was begun
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        Monitor=_NoStatistics,
        datadir=str(folder / "faust"),
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    app.settings = settings
    cast(Any, app.transport).Consumer = _Consumer
    # acks=False: `batches` commits; Faust would remember every gap between offsets for ever
    topic = app.topic(settings.topics.beats, acks=False, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="score-beats")
    async def score_beats(stream: Any) -> None:
        room = stream.channel.queue
        async for event in stream.noack().events():
            await batches.handle(_batch(event, room, settings.worker.max_batch, app.consumer_generation_id))

    async def assigned(app: Any, assigned: set[TP], **_: Any) -> None:
        watchdog.assign((tp.topic, tp.partition) for tp in assigned)
        batches.assigned()
        log.info("partitions: %s", ", ".join(str(n) for n in sorted(tp.partition for tp in assigned)) or "none")

    async def revoked(app: Any, revoked: set[TP], **_: Any) -> None:
        with watchdog.giving_back():
            await batches.revoked()

    app.on_partitions_assigned.connect(cast(Any, assigned))
    app.on_partitions_revoked.connect(cast(Any, revoked))
    app.in_worker = True
    return app


def _credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    protocol = settings.kafka.security_protocol
    context = kafka.tls(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return SASLCredentials(
            username=settings.kafka.sasl_username,
            password=kafka.password(settings),
            mechanism=settings.kafka.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None
