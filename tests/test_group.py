"""Offsets of a group whose brokers answer in part; of a real one: tests/integration/."""

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from ecgwatch import cluster
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Kafka, Settings
from ecgwatch.group import Group


class Torn:
    """A consumer whose broker leads some partitions and does not answer for these."""

    def __init__(self, consumer, silent):
        self._consumer, self._silent = consumer, silent

    def __getattr__(self, name):
        return getattr(self._consumer, name)

    def get_watermark_offsets(self, partition, timeout):
        if partition.partition in self._silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return self._consumer.get_watermark_offsets(partition, timeout=timeout)


def test_a_leader_that_does_not_answer_keeps_no_worker_from_the_others(monkeypatch):
    with embedded_broker(["ecg-beats"]) as address:
        settings = Settings(kafka=Kafka(brokers=address, start_timeout_s=1))
        monkeypatch.setattr("ecgwatch.group.Consumer", lambda options: Torn(Consumer(options), {1}))
        cluster.wait_for_group(settings)
        group = Group(settings)
        led = group.partitions("ecg-beats", led=True)
        assert {number for _, number in group.offsets(led, some=True)} == {p.partition for p in led} - {1}
        with pytest.raises(KafkaException):
            group.offsets(led)
        with pytest.raises(KafkaException):
            group.offsets([p for p in led if p.partition == 1], some=True)
        group.close()
