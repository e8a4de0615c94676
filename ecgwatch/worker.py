"""`ecgwatch worker`: beats from Kafka, scored, alerts to Kafka; the only module that imports faust.

    stream ─▶ queue (bounded) ─▶ batch: what arrived while the last one was scored
                                   └▶ thread: batch.process ─▶ publish, acknowledged ─▶ commit its offsets ─▶ next

One batch is under way at a time. Its offsets are committed when the broker has acknowledged all its records, before
the next batch begins and before partitions are given away; what was not scored then is not committed and goes to
whoever gets the partition. So a beat is scored again only when a worker or a broker dies in between.

Faust runs the consumer, the group and the agent. Three things are done here instead, each for a measured reason:
- Commits name the offsets of the batch. Faust's own bookkeeping of acknowledgements drops what is acknowledged and
  uncommitted when partitions are revoked (2-9 % repeats), and stops for ever at a gap in the offsets.
- A batch takes what waits in the stream's queue directly; the stream costs an event-loop turn a message.
- Signals, exit codes and log set-up: faust's command line ends with a traceback where one line is due, and after a
  failed batch it restarts the agent and scores on with its commits frozen.
"""

import asyncio
import logging
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import faust
from confluent_kafka import KafkaException, TopicPartition
from faust.auth import SASLCredentials, SSLCredentials
from faust.sensors import Monitor
from faust.types import TP, EventT
from mode.utils.queues import ThrowableQueue
from threadpoolctl import threadpool_limits

from ecgwatch import bundle as bundles
from ecgwatch import kafka, logs
from ecgwatch.batch import Outcome, PatientPartitions, Received, Rules, process
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError, EcgwatchError, ScoringError
from ecgwatch.logs import log
from ecgwatch.messages import CONTENT_TYPE, JSON
from ecgwatch.output import Publisher
from ecgwatch.scorer import Scorer
from ecgwatch.watchdog import Watchdog

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 4 * 1024 * 1024
SUMMARY_S = 60.0
RETRY_S = 0.5
NEVER_S = 86_400.0


def run(settings: Settings, make_scorer: Callable[..., Scorer] = Scorer) -> int:
    """Run a worker until SIGTERM or SIGINT; return 0 when everything in flight was committed.

    make_scorer: called with bundle, provider and threads.
    Raises EcgwatchError where the worker cannot start or cannot go on.
    """
    logs.set_up(settings.logs)
    watchdog = Watchdog(settings)
    stop = Stop(watchdog)
    # BLAS would spread the map's small products over all cores and spin there: twice the CPU for the same beats
    with stop.on_signals(), threadpool_limits(settings.model.threads or None, user_api="blas"):
        rules = _rules(settings, make_scorer)
        kafka.wait_for_broker(settings, lambda: stop.requested)
        if not stop.requested:
            kafka.require_topics(settings)
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
    batches = Batches(settings, rules, publisher, watchdog)
    app = build_app(settings, batches, folder)
    starting = asyncio.create_task(app.start())
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_crash(app)), batches.failed]
    summaries = asyncio.create_task(batches.summaries())
    try:
        await asyncio.wait([starting, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if (error := starting.exception()) is not None:
                raise BrokerError(f"the Kafka client did not start: {type(error).__name__}: {error}")
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for ended in waiting:
            if ended.done():
                ended.result()
        log.info("stopping: finishing what is in flight")
    except EcgwatchError as failure:
        watchdog.stopping(failure.exit_code)
        log.error("failed: %s", failure)
        raise
    finally:
        await batches.finish()
        await app.stop()
        summaries.cancel()
        publisher.close()


async def _crash(app: faust.App) -> None:
    """Return when Faust's app has ended by itself; raises BrokerError with the reason."""
    while not app.crashed:
        await asyncio.sleep(RETRY_S)
    raise BrokerError(f"the Kafka client gave up: {type(app.crash_reason).__name__}: {app.crash_reason}")


class WaitingRoom(ThrowableQueue):
    """The queue of Faust's stream, bounded by bytes as well as by messages.

    Faust's own way of slowing down, which would leave a partition out and look again after a second, is not used:
    the fetcher simply waits while the queue is full.
    """

    def __init__(self, max_bytes: int, **kwargs: Any) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        super().__init__(**kwargs)

    def full(self) -> bool:
        return self._bytes >= self._max_bytes or super().full()

    def clear(self) -> None:
        super().clear()
        self._bytes = 0

    def in_pressure_high_state(self, callback: Callable[[], None]) -> bool:
        return False

    def take(self, limit: int, generation: int) -> list[EventT]:
        """Take what waits, at most `limit` messages; those fetched before a rebalance are dropped, they come again."""
        taken: list[EventT] = []
        size = 0
        while len(taken) < limit and size < MAX_BATCH_BYTES and not self.empty():
            event = self.get_nowait()
            if event.message.generation_id == generation:
                taken.append(event)
                size += _size(event)
        return taken

    def _put(self, event: EventT) -> None:
        super()._put(event)
        self._bytes += _size(event)

    def _get(self) -> EventT:
        event = super()._get()
        self._bytes -= _size(event)
        return event


def _size(event: EventT) -> int:
    return len(event.message.value or b"") + len(event.message.key or b"")


class _App(faust.App):
    logger = logging.getLogger("faust.app")

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> WaitingRoom:
        return WaitingRoom(
            MAX_WAITING_BYTES,
            maxsize=maxsize or 0,
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


def build_app(settings: Settings, batches: "Batches", folder: Path) -> faust.App:
    """Return the Faust app whose one agent hands batches of the beat topic to `batches`. Needs a running loop."""
    app = _App(
        settings.kafka.group,
        broker=[f"kafka://{address.strip()}" for address in settings.kafka.brokers.split(",")],
        broker_credentials=_credentials(settings),
        broker_client_id=settings.kafka.client_id,
        broker_session_timeout=settings.kafka.session_timeout_s,
        broker_heartbeat_interval=settings.kafka.heartbeat_s,
        broker_max_poll_records=settings.worker.max_batch,
        broker_commit_interval=NEVER_S,  # nothing is left to Faust to commit
        # A new group begins with the oldest beat kept, and so does a partition whose committed offset is gone: with
        # "latest" the beats up to the first commit would be lost without a word.
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=settings.worker.max_waiting,
        stream_wait_empty=False,  # `batches` waits for the batch in flight; the rest was not begun
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        Monitor=_NoStatistics,
        datadir=str(folder / "faust"),
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    # acks=False: `batches` commits; Faust would remember every gap between offsets for ever
    topic = app.topic(settings.topics.beats, acks=False, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="score-beats")
    async def score_beats(stream: Any) -> None:
        room = stream.channel.queue
        async for event in stream.noack().events():
            rest = room.take(settings.worker.max_batch - 1, app.consumer_generation_id)
            await batches.handle([event, *rest])

    app.on_partitions_revoked.connect(cast(Any, batches.on_revoked))
    app.on_partitions_assigned.connect(cast(Any, batches.on_assigned))
    app.in_worker = True
    batches.app = app
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


class Batches:
    """Takes one batch after the other from offset to commit; used from the event loop."""

    def __init__(self, settings: Settings, rules: Rules, publisher: Publisher, watchdog: Watchdog) -> None:
        self.app: faust.App  # set by build_app
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._rules = rules
        self._publisher = publisher
        self._watchdog = watchdog
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._group = kafka.Group(settings)
        self._busy = asyncio.Lock()
        self._next: dict[TP, int] = {}  # offset after the last one handled, of each partition
        self._partitions = PatientPartitions()
        self._counts: Counter[str] = Counter()

    async def handle(self, events: Sequence[EventT]) -> None:
        """Score, publish and commit a batch; where that fails, set `failed` and never return."""
        async with self._busy:
            try:
                batch = await self._in_order([event.message for event in events])
                if not batch:
                    return
                outcome = await self._off_loop(process, batch, self._rules)
                await self._publisher.publish(outcome.records)
                await self._commit({TP(message.topic, message.partition) for message in batch})
                self._count(outcome)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing from this batch on may be committed
                self._fail(error)
                await asyncio.Event().wait()  # Faust would start the agent again

    async def finish(self) -> None:
        """Wait for the batch in flight and begin no other."""
        if not self.failed.done():
            await self._busy.acquire()
        self._thread.shutdown(wait=False)

    async def on_assigned(self, app: Any, assigned: set[TP], **_: Any) -> None:
        """The group gave these partitions to this worker."""
        self._watchdog.assign((tp.topic, tp.partition) for tp in assigned)
        log.info("partitions: %s", ", ".join(str(n) for n in sorted(tp.partition for tp in assigned)) or "none")

    async def on_revoked(self, app: Any, revoked: set[TP], **_: Any) -> None:
        """The group takes all partitions back: wait until the batch in flight is committed."""
        self._watchdog.assign(())
        async with self._busy:
            self._next.clear()

    async def summaries(self) -> None:
        """Log what was done, once a minute, where anything was."""
        while True:
            await asyncio.sleep(SUMMARY_S)
            if self._counts:
                done, self._counts = self._counts, Counter()
                log.info("in %.0f s: %s", SUMMARY_S, ", ".join(f"{count} {what}" for what, count in done.items()))

    async def _off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _in_order(self, messages: Sequence[Any]) -> list[Received]:
        """Return those messages that were not handled before; look into every gap between their offsets."""
        batch = []
        for message in messages:
            tp = TP(message.topic, message.partition)
            if tp not in self._next:
                self._next[tp] = await self._committed(tp)
            expected = self._next[tp]
            if message.offset < expected:
                continue  # the client read it twice
            if message.offset > expected:
                await self._gap(tp, expected, message.offset)
            self._next[tp] = message.offset + 1
            batch.append(_received(message))
        return batch

    async def _committed(self, tp: TP) -> int:
        """Where this partition goes on: nobody else commits it now."""
        offsets = await self._ask(self._group.offsets, [TopicPartition(tp.topic, tp.partition)])
        seen = offsets[tp.topic, tp.partition]
        return seen.low if seen.committed is None else seen.committed

    async def _gap(self, tp: TP, expected: int, found: int) -> None:
        """Tell what retention took, what never was a record, and what the client must not have skipped.

        Raises ScoringError for the last.
        """
        offsets = await self._ask(self._group.offsets, [TopicPartition(tp.topic, tp.partition)])
        kept_from = offsets[tp.topic, tp.partition].low
        if lost := max(0, min(kept_from, found) - expected):
            self._counts["offsets lost"] += lost
            log.error(
                "lost: %d offsets of partition %d (%d to %d) were deleted before they were read: see its retention",
                lost,
                tp.partition,
                expected,
                expected + lost - 1,
            )
        first = expected + lost
        if first < found and await self._ask(self._group.holds_record, tp.topic, tp.partition, first, found):
            raise ScoringError(f"the Kafka client skipped records of partition {tp.partition} at offset {first}")

    async def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the broker, for as long as it does not answer."""
        while True:
            try:
                return await self._off_loop(question, *arguments)
            except KafkaException:
                await asyncio.sleep(RETRY_S)

    async def _commit(self, partitions: set[TP]) -> None:
        consumer: Any = self.app.consumer
        mine = partitions & consumer.assignment()
        committed = bool(mine) and await consumer._commit({tp: self._next[tp] for tp in mine})
        if not committed or mine != partitions:
            gone = sorted(tp.partition for tp in (partitions - mine if committed else partitions))
            log.warning(
                "commit refused, the group changed meanwhile: the last batch of partitions %s may be scored again", gone
            )

    def _count(self, outcome: Outcome) -> None:
        if outcome.dead_letters and not self._counts["dead letters"]:
            log.warning("dead letter: a message cannot be scored; the reason stands in its headers")
        self._counts["beats scored"] += outcome.scored
        self._counts["alerts"] += outcome.alerts
        self._counts["dead letters"] += outcome.dead_letters
        for patient, before, now in self._partitions.moved(outcome.partition_of):
            log.warning(
                "%s came from partition %d and now from %d: a producer does not use murmur2 by key, "
                "or the topic's number of partitions changed",
                logs.who(patient, self._settings.logs),
                before,
                now,
            )

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, EcgwatchError):
            log.debug("traceback", exc_info=error)
            error = ScoringError(f"a batch failed: {_where(error)}; nothing of it was committed")
        if not self.failed.done():
            self.failed.set_exception(error)


def _received(message: Any) -> Received:
    content_type = JSON
    for name, value in message.headers or ():
        if name == CONTENT_TYPE:
            content_type = value.decode("utf-8", "replace")
    return Received(message.topic, message.partition, message.offset, message.key, message.value, content_type)


def _where(error: Exception) -> str:
    """The error's type and place; not its text, which may hold what was in the message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
