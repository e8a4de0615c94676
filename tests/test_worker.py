"""The worker's parts that need no broker, and its plumbing on the embedded one; the rest on a real Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from mode.utils.queues import FlowControlEvent

from ecgwatch import messages, worker
from ecgwatch.broker import embedded_broker
from ecgwatch.messages import CONTENT_TYPE, MSGPACK, encode_beats
from tests.integration.traffic import beat

TOPICS = ["ecg-beats", "ecg-scores", "ecg-alerts", "ecg-dead-letters", "ecg-baselines"]


def fetched(*sizes: int, generation: int = 1) -> SimpleNamespace:
    """An event as the consumer makes it: what a fetch brought of a partition, records of these sizes."""
    records = [SimpleNamespace(value=b"x" * size, key=None) for size in sizes]
    return SimpleNamespace(value=records, message=SimpleNamespace(generation_id=generation))


def room(records: int = 10, max_bytes: int = 1000) -> worker.WaitingRoom:
    flow = FlowControlEvent()
    flow.resume()
    return worker.WaitingRoom(records, max_bytes, flow_control=flow, clear_on_resume=True)


def run(scene):
    return asyncio.run(scene())


def test_the_waiting_room_is_full_by_records_or_by_bytes_whichever_comes_first():
    async def scene():
        few, many = room(records=3), room(max_bytes=100)
        few.put_nowait(fetched(1, 1))
        before = few.full()
        few.put_nowait(fetched(1))
        many.put_nowait(fetched(60))
        before |= many.full()
        many.put_nowait(fetched(30, 30))
        return before, few.full(), many.full()

    assert run(scene) == (False, True, True)


def test_taking_from_the_waiting_room_makes_place_again():
    async def scene():
        place = room(max_bytes=100)
        place.put_nowait(fetched(50, 50))
        taken = place.take(10, 1)
        return len(taken), place.full(), place.empty()

    assert run(scene) == (1, False, True)


def test_clearing_the_waiting_room_makes_place_again():
    async def scene():
        place = room(max_bytes=100)
        place.put_nowait(fetched(100))
        place.clear()
        return place.full()

    assert run(scene) is False


def test_what_was_fetched_before_a_rebalance_is_dropped():
    async def scene():
        place = room()
        for generation in (1, 2, 1, 2):
            place.put_nowait(fetched(1, generation=generation))
        return [taken.message.generation_id for taken in place.take(10, 2)]

    assert run(scene) == [2, 2]


@pytest.mark.parametrize(("generation", "sizes"), [(1, [3, 4]), (2, [5])])
def test_an_event_taken_before_a_rebalance_is_no_part_of_a_batch_after_it(generation, sizes):
    async def scene():
        place = room()
        place.put_nowait(fetched(4, generation=1))
        place.put_nowait(fetched(5, generation=2))
        batch = worker._batch(fetched(3, generation=1), place, 10, generation)
        return [len(record.value) for record in batch]

    assert run(scene) == sizes


def test_a_batch_takes_no_more_records_than_it_may():
    async def scene():
        place = room()
        for _ in range(3):
            place.put_nowait(fetched(1, 1))
        return len(place.take(5, 1)), len(place.take(1, 1)), place.qsize()

    assert run(scene) == (2, 0, 1)


def test_importing_the_worker_loads_no_training_and_no_plotting():
    code = (
        "import sys, ecgwatch.worker, ecgwatch.check\n"
        "print([n for n in ('torch', 'wfdb', 'matplotlib', 'training', 'pandas', 'scipy', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_on_the_embedded_broker_a_beat_becomes_a_score_and_sigterm_ends_it_with_0():
    with embedded_broker(TOPICS) as address:
        settings = {"ECGWATCH_KAFKA_BROKERS": address, "ECGWATCH_TOPICS_SCORES": "ecg-scores"}
        process = subprocess.Popen([sys.executable, "-m", "ecgwatch", "worker"], env=os.environ | settings)
        try:
            producer = Producer({"bootstrap.servers": address, "log_level": 0})
            one = beat(0)
            producer.produce(
                "ecg-beats", encode_beats([one], MSGPACK), one.patient, headers=[(CONTENT_TYPE, MSGPACK.encode())]
            )
            assert producer.flush(20) == 0
            consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "log_level": 0})
            consumer.assign([TopicPartition("ecg-scores", number, 0) for number in range(4)])
            message = consumer.poll(60)
            consumer.close()
            assert message is not None
            assert messages.decode_score(message.value()).id == one.id
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
