"""Client settings and start errors that need no broker; with one: tests/integration/test_security.py and others."""

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from ecgwatch import kafka
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Kafka, Settings, Topics
from ecgwatch.errors import BrokerError, ConfigError


def test_every_producer_uses_kafka_s_own_partitioner_and_waits_for_all_replicas():
    options = kafka.producer_settings(Settings())
    assert (options["partitioner"], options["acks"], options["enable.idempotence"]) == ("murmur2_random", "all", True)


def test_a_plain_client_gets_no_password(monkeypatch):
    monkeypatch.setenv("ECGWATCH_KAFKA_SASL_PASSWORD", "secret")
    assert "secret" not in kafka.client_settings(Settings()).values()


def test_sasl_takes_the_password_from_the_environment(monkeypatch):
    monkeypatch.setenv("ECGWATCH_KAFKA_SASL_PASSWORD", "secret")
    settings = Settings(kafka=Kafka(security_protocol="SASL_PLAINTEXT", sasl_username="worker"))
    options = kafka.client_settings(settings)
    assert (options["sasl.username"], options["sasl.password"]) == ("worker", "secret")


def test_sasl_without_a_password_names_the_variable(monkeypatch):
    monkeypatch.delenv("ECGWATCH_KAFKA_SASL_PASSWORD", raising=False)
    settings = Settings(kafka=Kafka(security_protocol="SASL_PLAINTEXT", sasl_username="worker"))
    with pytest.raises(ConfigError, match="ECGWATCH_KAFKA_SASL_PASSWORD"):
        kafka.client_settings(settings)


def test_sasl_without_a_user_names_the_key():
    with pytest.raises(ConfigError, match=r"\[kafka\] sasl_username"):
        kafka.client_settings(Settings(kafka=Kafka(security_protocol="SASL_PLAINTEXT")))


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
def test_a_missing_tls_file_names_key_and_file(key):
    settings = Settings(kafka=Kafka(security_protocol="SSL", **{key: "/none/x.pem"}))
    with pytest.raises(ConfigError, match=rf"\[kafka\] {key} = /none/x.pem: No such file"):
        kafka.client_settings(settings)


def test_a_ca_file_that_is_no_certificate_is_one_line(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="ssl_cafile"):
        kafka.tls(Settings(kafka=Kafka(security_protocol="SSL", ssl_cafile=str(file))))


def test_waiting_for_a_broker_that_is_not_there_ends_with_one_line_that_names_it():
    with pytest.raises(BrokerError, match=r"no broker at 127\.0\.0\.1:9 within 0\.5 s \(.+\); see \[kafka\] brokers"):
        kafka.wait_for_broker(Settings(kafka=Kafka(brokers="127.0.0.1:9", start_timeout_s=0.5)))


def test_waiting_for_a_broker_ends_when_the_worker_is_to_stop():
    kafka.wait_for_broker(Settings(kafka=Kafka(brokers="127.0.0.1:9")), stopped=lambda: True)


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
        monkeypatch.setattr(kafka, "Consumer", lambda options: Torn(Consumer(options), {1}))
        kafka.wait_for_group(settings)
        group = kafka.Group(settings)
        led = group.partitions("ecg-beats", led=True)
        assert {number for _, number in group.offsets(led, some=True)} == {p.partition for p in led} - {1}
        with pytest.raises(KafkaException):
            group.offsets(led)
        with pytest.raises(KafkaException):
            group.offsets([p for p in led if p.partition == 1], some=True)
        group.close()


def test_a_missing_topic_is_named():
    with embedded_broker(["beats", "alerts"]) as address:
        topics = Topics(beats="beats", alerts="alerts", dead_letters="nowhere")
        with pytest.raises(BrokerError, match=f"no topic nowhere on {address}: create it, or set"):
            kafka.require_topics(Settings(kafka=Kafka(brokers=address), topics=topics), baselines=False)
