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
from ecgwatch.errors import MessageError
from ecgwatch.messages import CONTENT_TYPE, JSON, MSGPACK, encode_beats
from tests.integration.traffic import beat

TOPICS = ["ecg-beats", "ecg-scores", "ecg-alerts", "ecg-dead-letters"]


def event(size: int = 1, generation: int = 1) -> SimpleNamespace:
    return SimpleNamespace(message=SimpleNamespace(value=b"x" * size, key=None, generation_id=generation))


def room(messages: int = 10, max_bytes: int = 1000) -> worker.WaitingRoom:
    flow = FlowControlEvent()
    flow.resume()
    return worker.WaitingRoom(max_bytes, maxsize=messages, flow_control=flow, clear_on_resume=True)


def run(scene):
    return asyncio.run(scene())


def test_the_waiting_room_is_full_by_messages_or_by_bytes_whichever_comes_first():
    async def scene():
        few, many = room(messages=2), room(max_bytes=100)
        few.put_nowait(event())
        few.put_nowait(event())
        many.put_nowait(event(60))
        before = many.full()
        many.put_nowait(event(60))
        return few.full(), before, many.full()

    assert run(scene) == (True, False, True)


def test_taking_from_the_waiting_room_makes_place_again():
    async def scene():
        place = room(max_bytes=100)
        place.put_nowait(event(100))
        taken = place.take(10, 1)
        return len(taken), place.full(), place.empty()

    assert run(scene) == (1, False, True)


def test_clearing_the_waiting_room_makes_place_again():
    async def scene():
        place = room(max_bytes=100)
        place.put_nowait(event(100))
        place.clear()
        return place.full()

    assert run(scene) is False


def test_messages_fetched_before_a_rebalance_are_dropped():
    async def scene():
        place = room()
        for generation in (1, 2, 1, 2):
            place.put_nowait(event(generation=generation))
        return [taken.message.generation_id for taken in place.take(10, 2)]

    assert run(scene) == [2, 2]


def test_a_batch_takes_no_more_messages_than_it_may():
    async def scene():
        place = room()
        for _ in range(5):
            place.put_nowait(event())
        return len(place.take(3, 1)), place.qsize()

    assert run(scene) == (3, 2)


@pytest.mark.parametrize(
    ("headers", "form"),
    [([], JSON), (None, JSON), ([(CONTENT_TYPE, MSGPACK.encode())], MSGPACK), ([(CONTENT_TYPE, b"\xff")], "�")],
)
def test_the_content_type_is_read_from_the_header_and_json_without_one(headers, form):
    message = SimpleNamespace(topic="t", partition=0, offset=1, key=b"k", value=b"v", headers=headers)
    assert worker._received(message).content_type == form


def test_a_failure_is_told_by_type_and_place_without_its_text():
    try:
        raise MessageError("x", "Jane Roe's signal")
    except MessageError as error:
        assert worker._where(error).startswith("MessageError at test_worker.py:")


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
