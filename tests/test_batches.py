"""Batches from offset to commit: what may overlap, and in which order offsets are committed."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest
from confluent_kafka import Producer

from ecgwatch import batches as under_test
from ecgwatch import bundle, config
from ecgwatch.baselines import Baselines
from ecgwatch.batch import Record, Rules
from ecgwatch.batches import COMMIT_EVERY_S, UNACKNOWLEDGED, Batches
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError
from ecgwatch.messages import CONTENT_TYPE, MSGPACK, encode_beats
from ecgwatch.scorer import Scorer, Scores
from tests.integration.traffic import beat


class Broker:
    """Stands for publisher and group: acknowledges when told to, and notes what is published and committed."""

    def __init__(self) -> None:
        self.published: list[int] = []  # batches, by the offset of their first record
        self.commits: list[dict[int, int]] = []  # partition -> offset
        self._acknowledged: dict[int, asyncio.Future[None]] = {}

    async def publish(self, records: list[Record]) -> None:
        number = int(records[0].key or b"")
        self.published.append(number)
        await self._answer(number)

    def acknowledge(self, *numbers: int) -> None:
        for number in numbers:
            self._answer(number).set_result(None)

    def refuse(self, number: int, error: Exception) -> None:
        self._answer(number).set_exception(error)

    async def commit(self, ends) -> list[int]:
        self.commits.append({number: end for (_, number), end in ends.items()})
        return []

    def _answer(self, number: int) -> asyncio.Future[None]:
        return self._acknowledged.setdefault(number, asyncio.get_running_loop().create_future())


def letter(offset: int, partition: int = 0) -> SimpleNamespace:
    """A record that becomes a dead letter, whose key is the offset: no model is needed to publish it."""
    key = str(offset).encode()
    return SimpleNamespace(topic="beats", partition=partition, offset=offset, key=key, value=b"?", headers=())


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with embedded_broker(["beats", "ecg-baselines"]) as address:
        yield config.load(environ={"ECGWATCH_KAFKA_BROKERS": address})


class Failing(Scorer):
    """The default model, which fails."""

    def score(self, x) -> Scores:
        if len(x) and hasattr(self, "warm"):
            raise RuntimeError("a failure that nobody foresaw")
        self.warm = True
        return super().score(x)


@pytest.fixture(scope="module")
def rules() -> Rules:
    loaded = bundle.load("default")
    return Rules(Failing(loaded, "cpu", 1), loaded, 1.0, "", "alerts", "dead", 256)


@pytest.fixture
def play(settings: Settings, rules: Rules) -> Callable[[Callable[[Batches, Broker], Awaitable[object]]], object]:
    """Run a scene with batches whose commits are under way."""

    def run(scene):
        async def whole():
            broker = Broker()
            batches = Batches(settings, rules, broker)
            committing = asyncio.create_task(batches.commit_published(broker.commit))
            try:
                return await asyncio.wait_for(scene(batches, broker), 20)
            finally:
                committing.cancel()
                if batches.failed.done():
                    batches.failed.exception()

        return asyncio.run(whole())

    return run


async def commits() -> None:
    """Give commits the time they would take."""
    await asyncio.sleep(4 * COMMIT_EVERY_S)


async def committed(broker: Broker, ends: dict[int, int]) -> None:
    """Wait until these offsets are those committed last."""
    while broker.commits[-1:] != [ends]:
        await asyncio.sleep(0.01)


def test_a_batch_is_scored_while_those_before_it_wait_for_the_broker(play):
    async def scene(batches, broker):
        await batches.handle([letter(0), letter(1)])
        await batches.handle([letter(2)])
        await asyncio.sleep(0)
        return broker.published, broker.commits

    assert play(scene) == ([0, 2], [])


def test_no_more_batches_wait_for_the_broker_than_they_may(play):
    async def scene(batches, broker):
        for number in range(UNACKNOWLEDGED):
            await batches.handle([letter(number)])
        one_more = asyncio.create_task(batches.handle([letter(UNACKNOWLEDGED)]))
        await commits()
        before = len(broker.published), one_more.done()
        broker.acknowledge(0)
        await one_more
        await asyncio.sleep(0)
        return before, len(broker.published)

    assert play(scene) == ((UNACKNOWLEDGED, False), UNACKNOWLEDGED + 1)


def test_offsets_are_committed_in_order_however_the_broker_acknowledges(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        await batches.handle([letter(1)])
        broker.acknowledge(1)
        await commits()
        before = list(broker.commits)
        broker.acknowledge(0)
        await committed(broker, {0: 2})
        return before

    assert play(scene) == []


def test_batches_acknowledged_shortly_after_each_other_share_a_commit(play):
    async def scene(batches, broker):
        for number in range(3):
            await batches.handle([letter(number)])
        broker.acknowledge(0, 1, 2)
        await committed(broker, {0: 3})
        return len(broker.commits)

    assert play(scene) <= 2  # the first may have set out before the others came


def test_a_batch_of_several_partitions_commits_each_of_them(play):
    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0, 1), letter(0, 2), letter(1, 2)])
        await committed(broker, {1: 1, 2: 2})
        return True

    assert play(scene)


def test_partitions_are_given_away_when_what_was_begun_is_committed(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        giving = asyncio.create_task(batches.revoked())
        await commits()
        early = giving.done()
        broker.acknowledge(0)
        await giving
        return early, broker.commits

    assert play(scene) == (False, [{0: 1}])


def test_a_batch_fetched_before_the_partitions_were_taken_back_is_not_scored(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        giving = asyncio.create_task(batches.revoked())
        await asyncio.sleep(0)
        late = asyncio.create_task(batches.handle([letter(1)]))
        giving_again = asyncio.create_task(batches.revoked())
        await asyncio.sleep(0)
        broker.acknowledge(0)
        await asyncio.gather(giving, late, giving_again)
        return broker.published

    assert play(scene) == [0]


def test_between_giving_partitions_back_and_getting_some_nothing_is_scored(play):
    async def scene(batches, broker):
        broker.acknowledge(0, 1)
        await batches.handle([letter(0)])
        await batches.revoked()
        await batches.handle([letter(1)])  # Faust had taken it from its queue before
        before = list(broker.published)
        batches.assigned()
        await batches.handle([letter(1)])
        await committed(broker, {0: 2})
        return before, broker.published

    assert play(scene) == ([0], [0, 1])


def test_a_record_read_twice_is_handled_once(play):
    async def scene(batches, broker):
        broker.acknowledge(0, 1)
        await batches.handle([letter(0)])
        await batches.handle([letter(0)])
        await batches.handle([letter(0), letter(1)])
        await committed(broker, {0: 2})
        return broker.published

    assert play(scene) == [0, 1]


def test_a_batch_that_fails_ends_all_when_those_before_it_are_committed(play):
    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0)])
        one = beat(0)
        headers = ((CONTENT_TYPE, MSGPACK.encode()),)
        value = encode_beats([one], MSGPACK)
        failing = SimpleNamespace(
            topic="beats", partition=0, offset=1, key=one.patient.encode(), value=value, headers=headers
        )
        stuck = asyncio.create_task(batches.handle([failing]))
        await asyncio.wait([batches.failed], timeout=10)
        stuck.cancel()
        return str(batches.failed.exception()), broker.commits

    text, committed = play(scene)
    assert text.startswith("a batch failed: RuntimeError at test_batches.py:")
    assert committed == [{0: 1}]


def test_a_record_that_the_broker_refuses_ends_all_and_nothing_from_it_on_is_committed(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        await batches.handle([letter(1)])
        broker.refuse(0, BrokerError("no"))
        broker.acknowledge(1)
        await asyncio.wait([batches.failed], timeout=10)
        await commits()
        return str(batches.failed.exception()), broker.commits

    assert play(scene) == ("no", [])


def test_finishing_waits_for_what_was_begun_and_begins_nothing_more(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        finishing = asyncio.create_task(batches.finish())
        late = asyncio.create_task(batches.handle([letter(1)]))
        await commits()
        early = finishing.done()
        broker.acknowledge(0)
        await finishing
        late.cancel()
        return early, broker.published, broker.commits

    assert play(scene) == (False, [0], [{0: 1}])


def test_finishing_does_not_wait_after_a_failure(play):
    async def scene(batches, broker):
        await batches.handle([letter(0)])
        await batches.handle([letter(1)])
        broker.refuse(0, BrokerError("no"))
        await asyncio.wait([batches.failed], timeout=10)
        await asyncio.wait_for(batches.finish(), 1)
        return True

    assert play(scene)


class Lost(Baselines):
    """What was learned cannot be told any more."""

    def unsaved(self) -> list[Record]:
        raise KeyError("Jane Roe")


@pytest.mark.parametrize("ending", ["finish", "revoked"])
def test_what_was_learned_and_cannot_be_saved_ends_all_and_names_nobody(play, monkeypatch, caplog, ending):
    monkeypatch.setattr(under_test, "Baselines", Lost)

    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0)])
        await committed(broker, {0: 1})
        await getattr(batches, ending)()
        return str(batches.failed.exception())

    text = play(scene)
    gc.collect()  # asyncio prints an error that nobody looked at when its task goes
    assert text.startswith("typical beats could not be saved: KeyError at test_batches.py:")
    assert "Jane Roe" not in text + caplog.text


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ([], None),
        ([(CONTENT_TYPE, None)], None),
        ([("trace", None), (CONTENT_TYPE, MSGPACK.encode())], MSGPACK),
        ([(CONTENT_TYPE, b"\xff")], "�"),
    ],
)
def test_the_content_type_is_that_of_the_header_and_none_without_a_value(headers, form):
    message = SimpleNamespace(topic="t", partition=0, offset=1, key=b"k", value=b"v", headers=headers)
    assert under_test._received(message).content_type == form


@pytest.mark.parametrize(
    ("value", "form"), [(b' {"version":1}', None), (b"\x83", MSGPACK), (b"", MSGPACK), (None, MSGPACK)]
)
def test_where_headers_could_not_be_read_the_value_tells_its_form(value, form):
    message = SimpleNamespace(topic="t", partition=0, offset=1, key=b"k", value=value, headers=None)
    assert under_test._received(message).content_type == form


def put_three(settings: Settings, partition: int) -> None:
    """Three records on a partition of the beat topic."""
    producer = Producer({"bootstrap.servers": settings.kafka.brokers, "log_level": 0})
    for _ in range(3):
        producer.produce("beats", value=b"?", partition=partition)
    assert producer.flush(10) == 0


def test_records_that_the_client_skipped_end_all_before_anything_after_them_is_scored(play, settings):
    put_three(settings, 3)

    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0, 3)])
        stuck = asyncio.create_task(batches.handle([letter(2, 3)]))
        await asyncio.wait([batches.failed], timeout=10)
        stuck.cancel()
        return str(batches.failed.exception()), broker.published

    assert play(scene) == ("the Kafka client skipped records of partition 3 at offset 1", [0])


def test_what_waits_in_a_partition_of_which_nothing_was_committed_is_scored_from_its_beginning(play, settings):
    put_three(settings, 2)

    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0, 2), letter(1, 2), letter(2, 2)])
        await committed(broker, {2: 3})
        return broker.published

    assert play(scene) == [0]


def test_a_partition_that_comes_back_goes_on_where_the_group_says_and_not_where_this_worker_was(play):
    async def scene(batches, broker):
        broker.acknowledge(0)
        await batches.handle([letter(0, 1)])
        await batches.revoked()
        batches.assigned()
        await batches.handle([letter(0, 1)])  # nothing was committed: it comes again
        return broker.published

    assert play(scene) == [0, 0]
