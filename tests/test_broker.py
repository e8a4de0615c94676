"""The embedded broker speaks enough of Kafka for the demo."""

import socket
import subprocess
import sys

from confluent_kafka import Consumer, Producer

from ecgwatch.broker import embedded_broker


def test_its_topics_exist_when_it_is_ready():
    with embedded_broker(["beats", "alerts"]) as address:
        known = Producer({"bootstrap.servers": address}).list_topics(timeout=5).topics
    assert set(known) == {"beats", "alerts"}


def test_a_consumer_group_gets_what_was_published_with_key_and_headers():
    with embedded_broker(["beats"]) as address:
        producer = Producer({"bootstrap.servers": address})
        producer.produce("beats", key="bed-1", value=b"x", headers={"content-type": b"application/json"})
        assert producer.flush(5) == 0
        consumer = Consumer({"bootstrap.servers": address, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["beats"])
        message = consumer.poll(15)
        consumer.close()
    assert (message.key(), message.value(), message.headers()) == (
        b"bed-1",
        b"x",
        [("content-type", b"application/json")],
    )


def test_another_process_reaches_it():
    code = (
        "import sys; from confluent_kafka import Producer\n"
        "print(*Producer({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=5).topics)"
    )
    with embedded_broker(["beats"]) as address:
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert done.stdout == "beats\n"


def test_it_is_gone_after_the_block():
    with embedded_broker(["beats"]) as address:
        host, port = address.split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
