"""Records of the beat topic from offset to commit, batch after batch; used from the event loop.

    handle ─▶ in order? ─▶ thread: batch.process ─▶ publish ─▶ acknowledged ─▶ commit
                             next batch ◀─┘                      └── those of the last COMMIT_EVERY_S share one

One batch is scored at a time, and the next one does not wait for the broker: up to UNACKNOWLEDGED batches may. Offsets
are committed in order, when the broker has acknowledged all records of their batch and of those before it; all of them
before partitions are given away. What was not scored then is not committed and goes to whoever gets the partition. So
a beat is scored again only when a worker or a broker dies in between.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from ecgwatch import kafka, logs
from ecgwatch.baselines import Baselines
from ecgwatch.batch import Outcome, PatientPartitions, Received, Rules, process
from ecgwatch.beats import Bedside
from ecgwatch.config import Settings
from ecgwatch.errors import EcgwatchError, ScoringError
from ecgwatch.group import Group, Offsets, Partition
from ecgwatch.logs import log
from ecgwatch.messages import CONTENT_TYPE, MSGPACK
from ecgwatch.output import Publisher

UNACKNOWLEDGED = 4  # batches
COMMIT_EVERY_S = 0.05  # a commit costs worker and broker as much as several beats
SETTLE_S = 1.0  # what a failure gives the batches before it to be committed
SUMMARY_S = 60.0
RETRY_S = 0.5
SAY_AFTER_S = 5.0  # partitions are without a leader for a moment whenever a broker goes

Commit = Callable[[Mapping[Partition, int]], Awaitable[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class _Scored:
    """A batch on its way out; ends: of each of its partitions, the offset after its last record."""

    ends: Mapping[Partition, int]
    published: asyncio.Task[None]


class Batches:
    """Takes batches from offset to commit; made and used in one event loop.

    failed: ends with the error after which nothing more is scored or committed.
    """

    def __init__(self, settings: Settings, rules: Rules, publisher: Publisher) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._rules = rules
        self._publisher = publisher
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._group = Group(settings)
        contract = rules.bundle.manifest.contract
        self._baselines = Baselines(settings, contract) if isinstance(contract, Bedside) else None
        self._scoring = asyncio.Lock()
        self._unacknowledged = asyncio.Semaphore(UNACKNOWLEDGED)
        self._scored: asyncio.Queue[_Scored] = asyncio.Queue()  # offsets only: it holds no records
        self._revocations = 0
        self._given_back = False
        self._finishing = False
        self._next: dict[Partition, int] = {}  # offset after the last one handled, of each partition
        self._partitions = PatientPartitions()
        self._counts: Counter[str] = Counter()

    async def handle(self, records: Sequence[Any]) -> None:
        """Score a batch and begin to publish it; where that fails, set `failed` and never return.

        records: with topic, partition, offset, key, value and headers, those of a partition in order.
        """
        revocations = self._revocations
        async with self._scoring:
            if self._finishing or self._given_back or revocations != self._revocations:
                return  # fetched before the group took the partitions back: they come again, here or elsewhere
            try:
                batch = await self._in_order(records)
                if batch:
                    outcome = await self._off_loop(_process, batch, self._rules, self._baselines)
                    await self._unacknowledged.acquire()
                    ends = {(one.topic, one.partition): one.offset + 1 for one in batch}
                    published = asyncio.create_task(self._publish(outcome))
                    published.add_done_callback(retrieved)
                    self._scored.put_nowait(_Scored(ends, published))
                    self._count(outcome)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing from this batch on may be committed
                await asyncio.wait([asyncio.create_task(self._scored.join())], timeout=SETTLE_S)
                self.fail(error)
                await asyncio.Event().wait()  # Faust would start the agent again

    async def commit_published(self, commit: Commit) -> None:
        """Commit batches as the broker acknowledges them, for ever; where that fails, set `failed` and return.

        commit: takes the offset after the last one, of each partition; returns the partitions that it was refused for.
        """
        try:
            while True:
                scored = [await self._scored.get()]
                await asyncio.sleep(COMMIT_EVERY_S)
                while not self._scored.empty():
                    scored.append(self._scored.get_nowait())
                for one in scored:
                    await one.published
                refused = await commit({partition: end for one in scored for partition, end in one.ends.items()})
                if refused:
                    log.warning(
                        "commit refused, the group changed meanwhile: the last batch of partitions %s may be scored "
                        "again",
                        sorted(refused),
                    )
                for _ in scored:
                    self._scored.task_done()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing from this batch on may be committed
            self.fail(error)

    async def revoked(self) -> None:
        """The group takes all partitions back: wait until what was begun is committed; begin nothing meanwhile.

        Of a record that comes late nobody could tell where its partition goes on: others still commit it. Where what
        was learned cannot be saved, set `failed`.
        """
        self._revocations += 1
        self._given_back = True
        async with self._scoring:
            await self._scored.join()
            self._next.clear()
            await self._save()
            if self._baselines is not None:
                self._baselines.give_back()

    def assigned(self) -> None:
        """The group has given partitions: their records may come. To be called before Faust seeks and fetches again."""
        self._given_back = False

    def fail(self, error: Exception, said: str = "a batch failed: {}; nothing of it was committed") -> None:
        """Score and commit nothing more, for this reason; the first one counts. said: in it goes the error's place."""
        if not isinstance(error, EcgwatchError):
            log.debug("traceback", exc_info=error)
            error = ScoringError(said.format(logs.where(error)))
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # looked at: asyncio would print it where something else ends the process

    async def finish(self) -> None:
        """Wait until what was begun is committed, and begin nothing more; where that fails, set `failed`.

        Returns at once after a failure.
        """
        self._finishing = True
        settled = asyncio.create_task(self._settle())
        await asyncio.wait([settled, self.failed], return_when=asyncio.FIRST_COMPLETED)
        self._thread.shutdown(wait=False)

    async def _settle(self) -> None:
        async with self._scoring:
            await self._scored.join()
            await self._save()

    async def _save(self) -> None:
        """Save what was learned of the patients since it was saved, before their partitions go.

        Where that fails, set `failed`: raised, it would be printed by Faust or asyncio, and its text may hold a name.
        """
        if self._baselines is None:
            return
        try:
            self._baselines.hear()  # who was reset since the last batch is not to be saved as they were
            if records := self._baselines.unsaved():
                await self._publisher.publish(records)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process ends with it
            self.fail(error, "typical beats could not be saved: {}")

    async def summaries(self) -> None:
        """Log what was done, once a minute, where anything was."""
        while True:
            await asyncio.sleep(SUMMARY_S)
            if self._counts:
                done, self._counts = self._counts, Counter()
                log.info("in %.0f s: %s", SUMMARY_S, ", ".join(f"{count} {what}" for what, count in done.items()))

    async def _publish(self, outcome: Outcome) -> None:
        try:
            await self._publisher.publish(outcome.records)
        finally:
            self._unacknowledged.release()

    async def _off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _in_order(self, records: Sequence[Any]) -> list[Any]:
        """Return those records that were not handled before; look into every gap between their offsets."""
        batch = []
        for record in records:
            partition = (record.topic, record.partition)
            if partition not in self._next:
                self._next[partition] = await self._committed(partition)
                if self._baselines is not None:
                    what = f"the typical beats of partition {record.partition}"
                    await self._ask(what, self._baselines.load, record.partition)
            expected = self._next[partition]
            if record.offset < expected:
                continue  # the client read it twice
            if record.offset > expected:
                await self._gap(partition, expected, record.offset)
            self._next[partition] = record.offset + 1
            batch.append(record)
        return batch

    async def _committed(self, partition: Partition) -> int:
        """Where this partition goes on: nobody else commits it now."""
        seen = await self._offsets(partition)
        return seen.low if seen.committed is None else seen.committed

    async def _gap(self, partition: Partition, expected: int, found: int) -> None:
        """Tell what retention took, what never was a record, and what the client must not have skipped.

        Raises ScoringError for the last.
        """
        topic, number = partition
        kept_from = (await self._offsets(partition)).low
        if lost := max(0, min(kept_from, found) - expected):
            self._counts["offsets lost"] += lost
            log.error(
                "lost: %d offsets of partition %d (%d to %d) were deleted before they were read: see its retention",
                lost,
                number,
                expected,
                expected + lost - 1,
            )
        first = expected + lost
        what = f"the records of partition {number}"
        if first < found and await self._ask(what, self._group.holds_record, topic, number, first, found):
            raise ScoringError(f"the Kafka client skipped records of partition {number} at offset {first}")

    async def _offsets(self, partition: Partition) -> Offsets:
        what = f"the offsets of partition {partition[1]}"
        return (await self._ask(what, self._group.offsets, [TopicPartition(*partition)]))[partition]

    async def _ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the broker, for as long as it does not answer; every beat waits meanwhile: say for what."""
        start, said = time.monotonic(), False
        while True:
            try:
                answer = await self._off_loop(question, *arguments)
            except KafkaException as error:
                if not said and time.monotonic() - start >= SAY_AFTER_S:
                    log.warning("beats wait for %s: %s", what, kafka.problem(self._settings, error.args[0]))
                    said = True
                await asyncio.sleep(RETRY_S)
                continue
            if said:
                log.warning("the broker has told %s: beats go on", what)
            return answer

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


def retrieved(task: asyncio.Task[None]) -> None:
    """Look at a task's error: asyncio would print it where a failure before it ended the process."""
    if not task.cancelled():
        task.exception()


def _process(records: Sequence[Any], rules: Rules, baselines: Baselines | None) -> Outcome:
    received = [_received(record) for record in records]
    if baselines is None:
        return process(received, rules, {})
    baselines.hear()
    outcome = process(received, rules, baselines.patients)
    return replace(outcome, records=[*outcome.records, *baselines.due(outcome.partition_of)])


def _received(record: Any) -> Received:
    content_type = None
    if record.headers is None and not (record.value or b"").lstrip().startswith(b"{"):
        content_type = MSGPACK  # its headers cannot be read: the value itself tells
    for name, value in record.headers or ():
        if name == CONTENT_TYPE and value is not None:  # Kafka allows a header without value
            content_type = value.decode("utf-8", "replace")
    return Received(record.topic, record.partition, record.offset, record.key, record.value, content_type)
