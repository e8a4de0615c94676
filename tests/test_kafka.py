"""Client settings; against a broker that refuses: tests/integration/test_security.py."""

import pytest

from ecgwatch import kafka
from ecgwatch.config import Kafka, Settings
from ecgwatch.errors import ConfigError


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
