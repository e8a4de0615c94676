"""Kafka as every client of this program meets it: settings, access, topics, offsets; on confluent-kafka.

faust (aiokafka) is set up in worker.py from the same settings.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ConfigResource,
    ConsumerGroupDescription,
    NewTopic,
    ResourceType,
)

from ecgwatch import config
from ecgwatch.config import Settings
from ecgwatch.errors import AccessError, BrokerError, ConfigError
from ecgwatch.logs import log

REQUEST_TIMEOUT_S = 3.0
WAIT_LINE_S = 10.0  # how often waiting for the broker says so
CREATE_TIMEOUT_S = 30.0
ASK_AGAIN_S = 0.5
# Kafka compacts closed segments alone, and closes one at 1 GB: who takes a partition would read all that of the network
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": str(16 * 1024 * 1024)}
METADATA_MAX_AGE_S = 30.0  # so long may added partitions wait to be noticed; the clients' default is 5 to 15 minutes
REFUSAL_COUNTS_S = 10.0  # a client that is refused tries again each second; later, no answer is no answer

_REFUSED = {
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
_SHARING_OUT = {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING}
Partition = tuple[str, int]  # topic and number
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


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
            if error.code() in _REFUSED:
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
            return _words(self._last) if self._last else "no answer"


def wait_for_broker(settings: Settings, stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait until a broker answers, saying so.

    stopped: asked about once a second; true ends the waiting (the caller then stops too).
    Raises BrokerError after kafka.start_timeout_s, AccessError at once where waiting does not help.
    """
    brokers, errors = settings.kafka.brokers, Errors()
    admin = _admin(settings, errors)
    start = said = time.monotonic()
    while not stopped():
        try:
            admin.list_topics(timeout=1.0)
            if said != start:
                log.info("broker %s answers after %.0f s", brokers, time.monotonic() - start)
            return
        except KafkaException as error:
            if error.args[0].code() in _REFUSED:
                errors(error.args[0])
        admin.poll(0)  # serves the error callback
        if errors.refusal:
            raise refused(settings, errors.refusal)
        now = time.monotonic()
        waited, limit = now - start, settings.kafka.start_timeout_s
        if waited >= limit:
            raise BrokerError(f"no broker at {brokers} within {limit:g} s ({errors.last}); see [kafka] brokers")
        if said == start or now - said >= WAIT_LINE_S:
            said = now
            log.warning("waiting for broker %s: %s; giving up in %.0f s", brokers, errors.last, limit - waited)


def refused(settings: Settings, error: KafkaError) -> AccessError:
    """Say in one line why TLS or the password was refused."""
    kafka = settings.kafka
    if error.code() == KafkaError._SSL:
        return AccessError(f"TLS with broker {kafka.brokers} failed: {_words(error)}; see [kafka] ssl_cafile")
    variable = config.SECRETS["sasl_password"]
    return AccessError(
        f"broker {kafka.brokers} refused user {kafka.sasl_username} ({kafka.sasl_mechanism}): "
        f"see [kafka] sasl_username and {variable}"
    )


def wait_for_group(settings: Settings, stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait until the cluster tells what the group has committed; `stopped` as for `wait_for_broker`.

    The brokers that one asks first may answer while the group's coordinator does not, or advertises an address that
    leads nowhere: its clients would wait for ever, without a word.
    Raises BrokerError after kafka.start_timeout_s, AccessError where waiting does not help.
    """
    group, start = Group(settings), time.monotonic()
    said = False
    try:
        while not stopped():
            try:
                group.committed(group.partitions(settings.topics.beats))
                return
            except KafkaException as error:
                problem = group.problem(error)
            if isinstance(problem, AccessError):
                raise problem
            if time.monotonic() - start >= settings.kafka.start_timeout_s:
                raise BrokerError(
                    f"{settings.kafka.brokers} does not tell the offsets of group {settings.kafka.group} within "
                    f"{settings.kafka.start_timeout_s:g} s ({problem}); see the brokers' advertised.listeners"
                )
            if not said:
                log.warning("waiting for the offsets of group %s: %s", settings.kafka.group, problem)
            said = True
            time.sleep(ASK_AGAIN_S)
    finally:
        group.close()


def require_topics(settings: Settings, baselines: bool) -> None:
    """See that every topic exists and may be used, creating what is missing where topics.create says so.

    baselines: the model needs typical beats, and so their topic.
    Raises BrokerError for a missing topic, AccessError for one (or a group) that the user may not use.
    """
    admin = _admin(settings)
    topics = settings.topics
    uses: dict[str, tuple[AclOperation, ...]] = {topics.beats: (AclOperation.READ,)}
    uses |= {name: (AclOperation.WRITE,) for name in (topics.scores, topics.alerts, topics.dead_letters) if name}
    if baselines:
        uses[topics.baselines] = (AclOperation.READ, AclOperation.WRITE)
    try:
        missing = _missing(admin, uses)
        if hidden := _hidden(admin, missing):
            raise _denied(settings, uses[hidden[0]][0], f"topic {hidden[0]}")
        if missing and topics.create:
            _create(admin, settings, missing)
            missing = _missing(admin, uses)
        if missing:
            raise BrokerError(
                f"no topic {', '.join(missing)} on {settings.kafka.brokers}: create it, or set [topics] create = true"
            )
        if baselines:
            check_partitions(admin, settings)
        if settings.kafka.security_protocol != "PLAINTEXT":
            _check_access(admin, settings, uses)
    except KafkaException as error:
        raise problem(settings, error.args[0]) from None


def check_partitions(client: AdminClient | Consumer, settings: Settings) -> None:
    """Raise BrokerError where the typical beats have too few partitions: each lies in that of its patient's beats."""
    beats, baselines = settings.topics.beats, settings.topics.baselines
    known = client.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    count, wanted = (len(known[name].partitions) if name in known else 0 for name in (baselines, beats))
    if count < wanted:
        raise BrokerError(f"topic {baselines} has {count} partitions and {beats} has {wanted}: give it as many")


def session_limits(settings: Settings) -> str:
    """Return the session timeouts that the broker takes, in words; where it does not say, the names of its limits."""
    names = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
    try:
        admin = _admin(settings)
        broker = ConfigResource(ResourceType.BROKER, str(min(admin.list_topics(timeout=REQUEST_TIMEOUT_S).brokers)))
        found = admin.describe_configs([broker], request_timeout=REQUEST_TIMEOUT_S)[broker].result()
        low, high = (int(found[name].value) / 1000 for name in names)
    except (KafkaException, KeyError, TypeError, ValueError):  # the user may not ask, or it is no Apache Kafka
        return f"those from its {names[0]} to its {names[1]}"
    return f"{low:g} to {high:g} s ({names[0]}, {names[1]})"


def user(settings: Settings) -> str:
    """Return what the broker calls this client."""
    return settings.kafka.sasl_username or "(anonymous)"


def problem(settings: Settings, error: KafkaError) -> BrokerError:
    """Return the error that says in one line what a broker's answer means for this program."""
    if error.code() in _REFUSED:
        return refused(settings, error)
    if error.code() in DENIED:
        return AccessError(f"user {user(settings)} is denied: {_words(error)}")
    return BrokerError(f"broker {settings.kafka.brokers}: {_words(error)}")


def _missing(admin: AdminClient, names: Iterable[str]) -> list[str]:
    known = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    return [name for name in names if name not in known]


def _hidden(admin: AdminClient, names: list[str]) -> list[str]:
    """Of topics that are not listed, those that exist (or might) but not for this user."""
    if not names:
        return []
    described = admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_TIMEOUT_S)
    return [name for name, future in described.items() if _code(future) == KafkaError.TOPIC_AUTHORIZATION_FAILED]


def _code(future: Future[Any]) -> int | None:
    """The code of the error that a request ended with; None where it went well."""
    error = future.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _denied(settings: Settings, operation: AclOperation, resource: str) -> AccessError:
    return AccessError(f"user {user(settings)} may not {operation.name.lower()} {resource}: it needs an ACL")


def _create(admin: AdminClient, settings: Settings, names: list[str]) -> None:
    topics = settings.topics
    new = [
        NewTopic(name, topics.partitions, topics.replication, config=COMPACTED if name == topics.baselines else {})
        for name in names
    ]
    for name, future in admin.create_topics(new, operation_timeout=CREATE_TIMEOUT_S).items():
        try:
            future.result(timeout=CREATE_TIMEOUT_S)
            log.info("created topic %s: %d partitions, %d copies", name, topics.partitions, topics.replication)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker was quicker
                raise BrokerError(f"topic {name} could not be created: {_words(error.args[0])}") from None
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    while _missing(admin, names) and time.monotonic() < deadline:  # created is not yet known to every broker
        time.sleep(0.05)


def _check_access(admin: AdminClient, settings: Settings, uses: Mapping[str, Sequence[AclOperation]]) -> None:
    """Ask the broker what the user may do; one that does not say (no authorizer) allows everything."""
    described = admin.describe_topics(
        TopicCollection(list(uses)), include_authorized_operations=True, request_timeout=REQUEST_TIMEOUT_S
    )
    for name, future in described.items():
        allowed = future.result().authorized_operations
        if allowed and (lacking := [operation for operation in uses[name] if operation not in allowed]):
            raise _denied(settings, lacking[0], f"topic {name}")
    group = settings.kafka.group
    answer = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=REQUEST_TIMEOUT_S
    )[group]
    if _code(answer) == KafkaError.GROUP_AUTHORIZATION_FAILED:
        raise _denied(settings, AclOperation.READ, f"group {group}")
    allowed = answer.result().authorized_operations
    if allowed and AclOperation.READ not in allowed:
        raise _denied(settings, AclOperation.READ, f"group {group}")


class Offsets(NamedTuple):
    """Of one partition: first offset kept, end (the next to be written), committed (None: nothing yet)."""

    low: int
    end: int
    committed: int | None

    @property
    def next(self) -> int:
        """Where reading goes on: at the committed offset, or at what retention left."""
        return max(self.low, self.low if self.committed is None else self.committed)

    @property
    def lag(self) -> int:
        """How many offsets wait; some may hold no record (transaction markers, compaction)."""
        return max(0, self.end - self.next)


class Group:
    """Looks at a consumer group from outside, as no member of it. Not thread-safe.

    Offsets come through a consumer, not through librdkafka's admin client, which (2.16) aborted the process when the
    broker went away during ListOffsets.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors = Errors()
        self._consumer = Consumer(reader_settings(settings) | {"error_cb": self._errors})
        self._admin: AdminClient | None = None  # made when it is asked; held: its requests end with it

    def problem(self, error: KafkaException) -> BrokerError:
        """Return what an error of one of these questions means: AccessError where the broker does not let us in."""
        self._consumer.poll(0)  # serves the error callback: what a question ends with is a timeout
        return problem(self._settings, self._errors.recent_refusal or error.args[0])

    def partitions(self, topic: str, *, led: bool = False) -> list[TopicPartition]:
        """Return the partitions of a topic; raises BrokerError where there is none, KafkaException.

        led: only those that have a leader, and so offsets; KafkaException where none has.
        """
        found = self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        if found.error and found.error.code() in _UNKNOWN:
            raise BrokerError(f"no topic {topic} on {self._settings.kafka.brokers}")
        if found.error:
            raise KafkaException(found.error)
        numbers = [number for number, p in sorted(found.partitions.items()) if p.leader >= 0 or not led]
        if not numbers:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return [TopicPartition(topic, number) for number in numbers]

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[Partition, int | None]:
        """Return what the group has committed, as its coordinator says; None: nothing. Raises KafkaException."""
        found = {}
        for p in self._consumer.committed(list(partitions), timeout=REQUEST_TIMEOUT_S) if partitions else ():
            if p.error:
                raise KafkaException(p.error)
            found[p.topic, p.partition] = p.offset if p.offset >= 0 else None
        return found

    def offsets(self, partitions: Iterable[TopicPartition], *, some: bool = False) -> dict[Partition, Offsets]:
        """Return the offsets of partitions; raises KafkaException.

        some: leave out partitions whose leader does not answer, unless none does.
        """
        asked = [TopicPartition(p.topic, p.partition) for p in partitions]
        try:
            return self._offsets(asked, some)
        except KafkaException as error:
            if error.args[0].code() not in _UNKNOWN:
                raise
        for topic in {p.topic for p in asked}:  # partitions that were added since this client last asked
            self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S)
        return self._offsets(asked, some)

    def _offsets(self, asked: list[TopicPartition], some: bool) -> dict[Partition, Offsets]:
        found, silent = {}, None
        for partition, committed in self.committed(asked).items():
            try:
                low, end = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=REQUEST_TIMEOUT_S)
            except KafkaException as error:
                if not some or error.args[0].code() in _UNKNOWN:
                    raise
                silent = error
                continue
            found[partition] = Offsets(low, end, committed)
        if silent is not None and not found:
            raise silent
        return found

    def holds_record(self, topic: str, partition: int, first: int, end: int) -> bool:
        """Say whether a record stands at an offset from `first` up to, not including, `end`.

        Offsets without one are the markers of transactions and what compaction removed. Raises KafkaException.
        """
        self._consumer.assign([TopicPartition(topic, partition, first)])
        try:
            message = self._consumer.poll(REQUEST_TIMEOUT_S)
        finally:
            self._consumer.unassign()
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return False
            raise KafkaException(error)
        return int(message.offset() or 0) < end

    def members(self) -> dict[str, set[int]]:
        """Return the members, "client id at host", with the numbers of their partitions; raises KafkaException."""
        return {
            f"{member.member_id} at {member.host}": {p.partition for p in member.assignment.topic_partitions}
            for member in self._describe().members
        }

    def rebalances(self) -> bool:
        """Say whether the group is sharing out its partitions just now, when nobody may commit; raises KafkaException.

        The broker ends it: a member that does not take part is left out after its rebalance timeout.
        """
        try:
            return self._describe().state in _SHARING_OUT
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNSUPPORTED_FEATURE:  # of the embedded broker
                raise
            return False

    def _describe(self) -> ConsumerGroupDescription:
        group = self._settings.kafka.group
        if self._admin is None:
            self._admin = _admin(self._settings)
        return self._admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)[group].result()

    def close(self) -> None:
        """End the client."""
        self._consumer.close()


def _admin(settings: Settings, errors: Errors | None = None) -> AdminClient:
    return AdminClient(client_settings(settings) | {"error_cb": errors or Errors()})


def _words(error: KafkaError) -> str:
    """librdkafka's text without its address and timing prefixes, one line."""
    text = " ".join(error.str().split())
    return text.rsplit("]: ", 1)[-1][:200]
