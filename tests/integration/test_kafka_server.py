"""The tests' own broker."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.integration.conftest import Cluster
from tests.integration.kafka_server import Kafka

pytestmark = pytest.mark.kafka


def produce(brokers: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": brokers})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def first_value(brokers: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(30)
    consumer.close()
    return message.value() if message else None


def test_a_shared_topic_takes_and_gives_a_record(kafka: Cluster):
    topic = kafka.create_topic()
    produce(kafka.brokers, topic, b"beat")
    assert first_value(kafka.brokers, topic) == b"beat"


def test_a_private_broker_keeps_its_address_and_records_over_kill_and_start(start_kafka: Callable[..., Kafka]):
    broker = start_kafka()
    address = broker.brokers
    broker.create_topic("kept")
    produce(address, "kept", b"beat")
    broker.kill()
    broker.start()
    assert (broker.brokers, first_value(address, "kept")) == (address, b"beat")
