"""Kafka as every client of this program meets it: settings, secrets, refusals; on confluent-kafka.

faust (aiokafka) is set up in worker.py from the same settings.
"""

import ssl
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from ecgwatch import config
from ecgwatch.config import Settings
from ecgwatch.errors import AccessError, BrokerError, ConfigError

REQUEST_TIMEOUT_S = 3.0
METADATA_MAX_AGE_S = 30.0  # so long may added partitions wait to be noticed; the clients' default is 5 to 15 minutes
REFUSAL_COUNTS_S = 10.0  # a client that is refused tries again each second; later, no answer is no answer

REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError._SSL,
}
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


def client_settings(settings: Settings) -> dict[str, Any]:
    """Return what every confluent-kafka client needs: brokers, TLS, SASL.

    Raises ConfigError where a certificate's file or the password is missing.
    """
    kafka = settings.kafka
    client: dict[str, Any] = {
        "bootstrap.servers": kafka.brokers,
        "client.id": kafka.client_id,
        "security.protocol": kafka.security_protocol,
        "topic.metadata.refresh.interval.ms": int(METADATA_MAX_AGE_S * 1000),
        "reconnect.backoff.max.ms": 1000,  # after an outage the first retry should not wait for 10 s
        "log_level": 0,  # it would write to stderr on its own; what matters comes as errors
    }
    if "SSL" in kafka.security_protocol:
        check_files(settings)
        files = {
            "ssl.ca.location": kafka.ssl_cafile,
            "ssl.certificate.location": kafka.ssl_certfile,
            "ssl.key.location": kafka.ssl_keyfile,
            "ssl.key.password": config.secret("ssl_key_password"),
        }
        client |= {key: value for key, value in files.items() if value}
    if kafka.security_protocol.startswith("SASL"):
        client |= {
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.username": kafka.sasl_username,
            "sasl.password": password(settings),
        }
    return client


def reader_settings(settings: Settings) -> dict[str, Any]:
    """Return what a consumer needs that reads partitions from end to end and commits nothing."""
    return client_settings(settings) | {
        "group.id": settings.kafka.group,  # to ask for its offsets; it never joins, and commits nothing
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        # as Faust's client: read_committed, the default, ends a partition before a transaction that is still open
        "isolation.level": "read_uncommitted",
        "error_cb": lambda error: None,
    }


def producer_settings(settings: Settings) -> dict[str, Any]:
    """Return what every producer of this program needs on top: Kafka's own partitioner, nothing lost, order kept."""
    return client_settings(settings) | {
        "partitioner": "murmur2_random",  # as the Java clients; librdkafka's default puts patients elsewhere
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": 0,  # an outage may last: waiting is the worker's decision, not the client's
        "message.max.bytes": 100_000_000,  # the broker's own limit decides
        "linger.ms": 1,  # of a batch its records share requests; at 0 each would be sent alone
        "batch.size": 131_072,  # a topic may take less at once than the default, 1 MB; a larger record travels alone
    }


def password(settings: Settings) -> str:
    """Return the SASL password from the environment; raises ConfigError where user or password is missing."""
    if not settings.kafka.sasl_username:
        raise ConfigError(f"[kafka] sasl_username: needed with security_protocol = {settings.kafka.security_protocol}")
    if (found := config.secret("sasl_password")) is None:
        raise ConfigError(f"environment variable {config.SECRETS['sasl_password']}: needed with sasl_username")
    return found


def check_files(settings: Settings) -> None:
    """Raise ConfigError for a TLS file that cannot be read."""
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if name := getattr(settings.kafka, key):
            try:
                Path(name).open("rb").close()
            except OSError as error:
                raise ConfigError(f"[kafka] {key} = {name}: {error.strerror}") from None


def tls(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for aiokafka; raises ConfigError for certificates that cannot be used."""
    check_files(settings)
    kafka = settings.kafka
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile or None)
        if kafka.ssl_certfile:
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile or None, config.secret("ssl_key_password"))
    except ssl.SSLError as error:
        raise ConfigError(f"[kafka] ssl_cafile, ssl_certfile, ssl_keyfile: cannot be used: {error.reason}") from None
    return context


class Errors:
    """Collects what a client reports through its error callback, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: KafkaError | None = None
        self._refused_at = 0.0
        self.refusal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        with self._lock:
            if error.code() in REFUSED:
                self.refusal, self._refused_at = error, time.monotonic()
            elif error.code() != KafkaError._ALL_BROKERS_DOWN or self._last is None:
                self._last = error  # the one that says why, rather than that all are down

    @property
    def recent_refusal(self) -> KafkaError | None:
        """Why the broker does not let the client in, where it said so in the last REFUSAL_COUNTS_S."""
        with self._lock:
            return self.refusal if time.monotonic() - self._refused_at < REFUSAL_COUNTS_S else None

    @property
    def last(self) -> str:
        """What a client said last, in words."""
        with self._lock:
            return words(self._last) if self._last else "no answer"


def admin_client(settings: Settings, errors: Errors | None = None) -> AdminClient:
    """Return a client that asks and creates; errors: its callback."""
    return AdminClient(client_settings(settings) | {"error_cb": errors or Errors()})


def refused(settings: Settings, error: KafkaError) -> AccessError:
    """Say in one line why TLS or the password was refused."""
    kafka = settings.kafka
    if error.code() == KafkaError._SSL:
        return AccessError(f"TLS with broker {kafka.brokers} failed: {words(error)}; see [kafka] ssl_cafile")
    variable = config.SECRETS["sasl_password"]
    return AccessError(
        f"broker {kafka.brokers} refused user {kafka.sasl_username} ({kafka.sasl_mechanism}): "
        f"see [kafka] sasl_username and {variable}"
    )


def problem(settings: Settings, error: KafkaError) -> BrokerError:
    """Return the error that says in one line what a broker's answer means for this program."""
    if error.code() in REFUSED:
        return refused(settings, error)
    if error.code() in DENIED:
        return AccessError(f"user {user(settings)} is denied: {words(error)}")
    return BrokerError(f"broker {settings.kafka.brokers}: {words(error)}")


def user(settings: Settings) -> str:
    """Return what the broker calls this client."""
    return settings.kafka.sasl_username or "(anonymous)"


def words(error: KafkaError) -> str:
    """Return librdkafka's text without its address and timing prefixes, one line."""
    text = " ".join(error.str().split())
    return text.rsplit("]: ", 1)[-1][:200]
