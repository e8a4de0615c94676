"""Publishing a batch: all its records acknowledged by the broker, or an error."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, Producer

from ecgwatch import kafka
from ecgwatch.batch import Record, cut
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError

_POLL_S = 0.2

Report = Callable[[KafkaError | None, object], None]


class Publisher:
    """A producer whose deliveries are awaited by the batch; calls may overlap. Used from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(kafka.producer_settings(settings) | {"error_cb": lambda error: None})
        self._ended = threading.Event()
        self._producing = asyncio.Lock()  # calls keep their order also while librdkafka's queue is full
        # librdkafka reports deliveries only while somebody polls; poll() releases the GIL and wakes at once
        self._thread = threading.Thread(target=self._poll, name="deliveries", daemon=True)
        self._thread.start()

    async def publish(self, records: Sequence[Record]) -> None:
        """Publish records and return when the broker has acknowledged all of them.

        What the broker takes for too large is published again, alone, and a dead letter then cut. Waits as long as no
        broker answers. Raises AccessError or BrokerError where the broker refuses one.
        """
        refused = []
        for record, error in await self._deliver(records):
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and len(records) > 1:  # it may be those it travelled with
                refused += await self._deliver([record])
            else:
                refused.append((record, error))
        if any(error.code() == KafkaError._UNKNOWN_PARTITION for _, error in refused):
            with suppress(KafkaException):
                await asyncio.to_thread(self._producer.list_topics, timeout=kafka.REQUEST_TIMEOUT_S)
        for record, error in await self._deliver([self._again(record, error) for record, error in refused]):
            raise self._problem(record, error)

    def _again(self, record: Record, error: KafkaError) -> Record:
        """Return what is published in the place of a record that was refused; raises BrokerError where nothing is."""
        if error.code() == KafkaError._UNKNOWN_PARTITION:  # it may have been added since this client last asked
            return record
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and record.topic == self._settings.topics.dead_letters:
            return cut(record)
        raise self._problem(record, error)

    def close(self) -> None:
        """End the polling thread; what is not delivered is not waited for."""
        self._ended.set()
        self._thread.join()

    async def _deliver(self, records: Sequence[Record]) -> list[tuple[Record, KafkaError]]:
        """Return the records that the broker refused."""
        if not records:
            return []
        batch = _Batch(records, asyncio.get_running_loop())
        async with self._producing:
            for number, record in enumerate(records):
                await self._produce(record, batch.report(number))
        return await batch.done

    async def _produce(self, record: Record, report: Report) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    partition=record.partition,
                    on_delivery=report,
                )
                return
            except BufferError:  # librdkafka's queue is full: its thread is sending
                await asyncio.sleep(0.01)
            except KafkaException as error:
                report(error.args[0], None)
                return

    def _problem(self, record: Record, error: KafkaError) -> BrokerError:
        found = kafka.problem(self._settings, error)
        return type(found)(f"a record for topic {record.topic} was not taken: {found}")

    def _poll(self) -> None:
        while not self._ended.is_set():
            self._producer.poll(_POLL_S)


class _Batch:
    """Counts the deliveries of one batch; `done` holds what was refused when all were reported."""

    def __init__(self, records: Sequence[Record], loop: asyncio.AbstractEventLoop) -> None:
        self._records = records
        self._loop = loop
        self._open = len(records)
        self._refused: list[tuple[Record, KafkaError]] = []
        self._lock = threading.Lock()
        self.done: asyncio.Future[list[tuple[Record, KafkaError]]] = loop.create_future()

    def report(self, number: int) -> Report:
        def delivered(error: KafkaError | None, _: object) -> None:
            with self._lock:  # from the polling thread, or from produce() itself
                if error is not None:
                    self._refused.append((self._records[number], error))
                self._open -= 1
                last = self._open == 0
            if last:
                self._loop.call_soon_threadsafe(self._finish)

        return delivered

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self._refused)
