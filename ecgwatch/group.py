"""A consumer group as one sees it from outside: offsets, lag, members."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from ecgwatch import kafka
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError

Partition = tuple[str, int]  # topic and number
_SHARING_OUT = {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING}
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


class Offsets(NamedTuple):
    """Of one partition: first offset kept, end (the next to be written), committed (None: nothing yet)."""

    low: int
    end: int
    committed: int | None

    @property
    def next(self) -> int:
        """Where reading goes on: at the committed offset, or at what retention left."""
        return max(self.low, self.low if self.committed is None else self.committed)

    @property
    def lag(self) -> int:
        """How many offsets wait; some may hold no record (transaction markers, compaction)."""
        return max(0, self.end - self.next)


class Group:
    """Looks at a consumer group from outside, as no member of it. Not thread-safe.

    Offsets come through a consumer, not through librdkafka's admin client, which (2.16) aborted the process when the
    broker went away during ListOffsets.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors = kafka.Errors()
        self._consumer = Consumer(kafka.reader_settings(settings) | {"error_cb": self._errors})
        self._admin: AdminClient | None = None  # made when it is asked; held: its requests end with it

    def problem(self, error: KafkaException) -> BrokerError:
        """Return what an error of one of these questions means: AccessError where the broker does not let us in."""
        self._consumer.poll(0)  # serves the error callback: what a question ends with is a timeout
        return kafka.problem(self._settings, self._errors.recent_refusal or error.args[0])

    def partitions(self, topic: str, *, led: bool = False) -> list[TopicPartition]:
        """Return the partitions of a topic; raises BrokerError where there is none, KafkaException.

        led: only those that have a leader, and so offsets; KafkaException where none has.
        """
        found = self._consumer.list_topics(topic, timeout=kafka.REQUEST_TIMEOUT_S).topics[topic]
        if found.error and found.error.code() in _UNKNOWN:
            raise BrokerError(f"no topic {topic} on {self._settings.kafka.brokers}")
        if found.error:
            raise KafkaException(found.error)
        numbers = [number for number, p in sorted(found.partitions.items()) if p.leader >= 0 or not led]
        if not numbers:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return [TopicPartition(topic, number) for number in numbers]

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[Partition, int | None]:
        """Return what the group has committed, as its coordinator says; None: nothing. Raises KafkaException."""
        found = {}
        for p in self._consumer.committed(list(partitions), timeout=kafka.REQUEST_TIMEOUT_S) if partitions else ():
            if p.error:
                raise KafkaException(p.error)
            found[p.topic, p.partition] = p.offset if p.offset >= 0 else None
        return found

    def offsets(self, partitions: Iterable[TopicPartition], *, some: bool = False) -> dict[Partition, Offsets]:
        """Return the offsets of partitions; raises KafkaException.

        some: leave out partitions whose leader does not answer, unless none does.
        """
        asked = [TopicPartition(p.topic, p.partition) for p in partitions]
        try:
            return self._offsets(asked, some)
        except KafkaException as error:
            if error.args[0].code() not in _UNKNOWN:
                raise
        for topic in {p.topic for p in asked}:  # partitions that were added since this client last asked
            self._consumer.list_topics(topic, timeout=kafka.REQUEST_TIMEOUT_S)
        return self._offsets(asked, some)

    def _offsets(self, asked: list[TopicPartition], some: bool) -> dict[Partition, Offsets]:
        found, silent = {}, None
        for partition, committed in self.committed(asked).items():
            try:
                low, end = self._consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=kafka.REQUEST_TIMEOUT_S
                )
            except KafkaException as error:
                if not some or error.args[0].code() in _UNKNOWN:
                    raise
                silent = error
                continue
            found[partition] = Offsets(low, end, committed)
        if silent is not None and not found:
            raise silent
        return found

    def holds_record(self, topic: str, partition: int, first: int, end: int) -> bool:
        """Say whether a record stands at an offset from `first` up to, not including, `end`.

        Offsets without one are the markers of transactions and what compaction removed. Raises KafkaException.
        """
        self._consumer.assign([TopicPartition(topic, partition, first)])
        try:
            message = self._consumer.poll(kafka.REQUEST_TIMEOUT_S)
        finally:
            self._consumer.unassign()
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return False
            raise KafkaException(error)
        return int(message.offset() or 0) < end

    def read(self, starts: Mapping[Partition, int], most: int) -> dict[Partition, list[Message]]:
        """Return the records of each partition from an offset on, at most so many.

        What does not answer within REQUEST_TIMEOUT_S is not waited for. Raises KafkaException.
        """
        found: dict[Partition, list[Message]] = {partition: [] for partition in starts}
        wanted = set(starts)
        end = time.monotonic() + kafka.REQUEST_TIMEOUT_S
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in starts.items()])
        try:
            while wanted and (left_s := end - time.monotonic()) > 0:
                if (message := self._consumer.poll(left_s)) is None:
                    break
                partition = message.topic() or "", message.partition() or 0
                if (error := message.error()) is None and partition in wanted:
                    found[partition].append(message)
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is not None or len(found[partition]) >= most:
                    wanted.discard(partition)
        finally:
            self._consumer.unassign()
        return found

    def members(self) -> dict[str, set[int]]:
        """Return the members, "client id at host", with the numbers of their partitions; raises KafkaException."""
        return {
            f"{member.member_id} at {member.host}": {p.partition for p in member.assignment.topic_partitions}
            for member in self._describe().members
        }

    def rebalances(self) -> bool:
        """Say whether the group is sharing out its partitions just now, when nobody may commit; raises KafkaException.

        The broker ends it: a member that does not take part is left out after its rebalance timeout.
        """
        try:
            return self._describe().state in _SHARING_OUT
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNSUPPORTED_FEATURE:  # of the embedded broker
                raise
            return False

    def _describe(self) -> ConsumerGroupDescription:
        group = self._settings.kafka.group
        if self._admin is None:
            self._admin = kafka.admin_client(self._settings)
        return self._admin.describe_consumer_groups([group], request_timeout=kafka.REQUEST_TIMEOUT_S)[group].result()

    def close(self) -> None:
        """End the client."""
        self._consumer.close()
