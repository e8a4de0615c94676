"""A Kafka broker inside this process, for the demo and for fast tests.

It is librdkafka's mock cluster, which comes with confluent-kafka: the real protocol on loopback, consumer groups
included. It keeps little, in memory only, and knows no CreateTopics, so it proves nothing about durability or
rebalancing: those are tested on a real Kafka.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException, Producer

from ecgwatch.errors import BrokerError

_START_S = 10.0


@contextmanager
def embedded_broker(topics: Iterable[str]) -> Iterator[str]:
    """Run a broker with these topics, four partitions each, and yield its address; it ends with the block.

    Raises BrokerError where it does not start.
    """
    host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    try:
        deadline = time.monotonic() + _START_S
        for topic in topics:
            _create(host, topic, deadline)
        broker = next(iter(host.list_topics(timeout=_START_S).brokers.values()))
    except (KafkaException, StopIteration) as error:
        raise BrokerError(f"the embedded broker did not start: {error}") from None
    yield f"{broker.host}:{broker.port}"  # `host` owns the broker: it lives as long as this frame


def _create(host: Producer, topic: str, deadline: float) -> None:
    """Asking for a topic creates it; the first answers may still say that it has no leader."""
    while host.list_topics(topic, timeout=_START_S).topics[topic].error:
        if time.monotonic() > deadline:
            raise BrokerError(f"the embedded broker did not create topic {topic}")
        time.sleep(0.01)
