"""What must be there before work begins: a broker, the group's coordinator, the topics, and leave to use them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType

from ecgwatch import kafka
from ecgwatch.config import Settings
from ecgwatch.errors import AccessError, BrokerError
from ecgwatch.group import Group
from ecgwatch.logs import log

WAIT_LINE_S = 10.0  # how often waiting for the broker says so
CREATE_TIMEOUT_S = 30.0
ASK_AGAIN_S = 0.5
# Kafka compacts closed segments alone, and closes one at 1 GB: who takes a partition would read all that of the network
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": str(16 * 1024 * 1024)}


def wait_for_broker(settings: Settings, stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait until a broker answers, saying so.

    stopped: asked about once a second; true ends the waiting (the caller then stops too).
    Raises BrokerError after kafka.start_timeout_s, AccessError at once where waiting does not help.
    """
    brokers, errors = settings.kafka.brokers, kafka.Errors()
    admin = kafka.admin_client(settings, errors)
    start = said = time.monotonic()
    while not stopped():
        try:
            admin.list_topics(timeout=1.0)
            if said != start:
                log.info("broker %s answers after %.0f s", brokers, time.monotonic() - start)
            return
        except KafkaException as error:
            if error.args[0].code() in kafka.REFUSED:
                errors(error.args[0])
        admin.poll(0)  # serves the error callback
        if errors.refusal:
            raise kafka.refused(settings, errors.refusal)
        now = time.monotonic()
        waited, limit = now - start, settings.kafka.start_timeout_s
        if waited >= limit:
            raise BrokerError(f"no broker at {brokers} within {limit:g} s ({errors.last}); see [kafka] brokers")
        if said == start or now - said >= WAIT_LINE_S:
            said = now
            log.warning("waiting for broker %s: %s; giving up in %.0f s", brokers, errors.last, limit - waited)


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
    admin = kafka.admin_client(settings)
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
        raise kafka.problem(settings, error.args[0]) from None


def check_partitions(client: AdminClient | Consumer, settings: Settings) -> None:
    """Raise BrokerError where the typical beats have too few partitions: each lies in that of its patient's beats."""
    beats, baselines = settings.topics.beats, settings.topics.baselines
    known = client.list_topics(timeout=kafka.REQUEST_TIMEOUT_S).topics
    count, wanted = (len(known[name].partitions) if name in known else 0 for name in (baselines, beats))
    if count < wanted:
        raise BrokerError(f"topic {baselines} has {count} partitions and {beats} has {wanted}: give it as many")


def session_limits(settings: Settings) -> str:
    """Return the session timeouts that the broker takes, in words; where it does not say, the names of its limits."""
    names = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
    try:
        admin = kafka.admin_client(settings)
        broker = ConfigResource(
            ResourceType.BROKER, str(min(admin.list_topics(timeout=kafka.REQUEST_TIMEOUT_S).brokers))
        )
        found = admin.describe_configs([broker], request_timeout=kafka.REQUEST_TIMEOUT_S)[broker].result()
        low, high = (int(found[name].value) / 1000 for name in names)
    except (KafkaException, KeyError, TypeError, ValueError):  # the user may not ask, or it is no Apache Kafka
        return f"those from its {names[0]} to its {names[1]}"
    return f"{low:g} to {high:g} s ({names[0]}, {names[1]})"


def _missing(admin: AdminClient, names: Iterable[str]) -> list[str]:
    known = admin.list_topics(timeout=kafka.REQUEST_TIMEOUT_S).topics
    return [name for name in names if name not in known]


def _hidden(admin: AdminClient, names: list[str]) -> list[str]:
    """Of topics that are not listed, those that exist (or might) but not for this user."""
    if not names:
        return []
    described = admin.describe_topics(TopicCollection(names), request_timeout=kafka.REQUEST_TIMEOUT_S)
    return [name for name, future in described.items() if _code(future) == KafkaError.TOPIC_AUTHORIZATION_FAILED]


def _code(future: Future[Any]) -> int | None:
    """The code of the error that a request ended with; None where it went well."""
    error = future.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _denied(settings: Settings, operation: AclOperation, resource: str) -> AccessError:
    return AccessError(f"user {kafka.user(settings)} may not {operation.name.lower()} {resource}: it needs an ACL")


def _create(admin: AdminClient, settings: Settings, names: list[str]) -> None:
    topics = settings.topics
    new = {name: NewTopic(name, topics.partitions, topics.replication) for name in names}
    if topics.baselines in new:  # a typical beat lies in the partition of its patient's beats
        known = admin.list_topics(timeout=kafka.REQUEST_TIMEOUT_S).topics
        count = max(topics.partitions, len(known[topics.beats].partitions) if topics.beats in known else 0)
        new[topics.baselines] = NewTopic(topics.baselines, count, topics.replication, config=COMPACTED)
    for name, future in admin.create_topics([*new.values()], operation_timeout=CREATE_TIMEOUT_S).items():
        try:
            future.result(timeout=CREATE_TIMEOUT_S)
            log.info("created topic %s: %d partitions, %d copies", name, new[name].num_partitions, topics.replication)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker was quicker
                raise BrokerError(f"topic {name} could not be created: {kafka.words(error.args[0])}") from None
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    while _missing(admin, names) and time.monotonic() < deadline:  # created is not yet known to every broker
        time.sleep(0.05)


def _check_access(admin: AdminClient, settings: Settings, uses: Mapping[str, Sequence[AclOperation]]) -> None:
    """Ask the broker what the user may do; one that does not say (no authorizer) allows everything."""
    described = admin.describe_topics(
        TopicCollection(list(uses)), include_authorized_operations=True, request_timeout=kafka.REQUEST_TIMEOUT_S
    )
    for name, future in described.items():
        allowed = future.result().authorized_operations
        if allowed and (lacking := [operation for operation in uses[name] if operation not in allowed]):
            raise _denied(settings, lacking[0], f"topic {name}")
    group = settings.kafka.group
    answer = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=kafka.REQUEST_TIMEOUT_S
    )[group]
    if _code(answer) == KafkaError.GROUP_AUTHORIZATION_FAILED:
        raise _denied(settings, AclOperation.READ, f"group {group}")
    allowed = answer.result().authorized_operations
    if allowed and AclOperation.READ not in allowed:
        raise _denied(settings, AclOperation.READ, f"group {group}")
