"""`ecgwatch check`: is the group alive and does it make progress? Told from outside, by what Kafka sees of it."""

import time
from collections.abc import Mapping

from confluent_kafka import KafkaException

from ecgwatch.config import Settings
from ecgwatch.errors import StuckError
from ecgwatch.group import Group, Offsets, Partition
from ecgwatch.watchdog import MARGIN_S

LOOK_S = 0.5


def check(settings: Settings) -> str:
    """Return one line that says why the group is healthy: it has members, and commits move wherever records wait.

    Takes moments when they do, session_timeout_s and 5 s more before it calls them frozen: a rebalance or a crash
    that the group heals by itself may hold commits that long. A stopped (SIGSTOP) worker without beats waiting is
    noticed when the group has missed its heartbeats, after session_timeout_s.
    Raises StuckError where the group is not healthy, BrokerError or AccessError where the cluster does not say.
    """
    group = Group(settings)
    try:
        return _check(settings, group)
    except KafkaException as error:
        raise group.problem(error) from None
    finally:
        group.close()


def _check(settings: Settings, group: Group) -> str:
    name, topic = settings.kafka.group, settings.topics.beats
    there = group.partitions(topic)
    if not (members := group.members()):
        raise StuckError(f"group {name} has no members: no worker runs, or none answers its heartbeats")
    led = group.partitions(topic, led=True)  # of the others nobody can read a record
    before = group.offsets(led, some=True)
    if truncated := sorted(number for (_, number), seen in before.items() if (seen.committed or 0) > seen.end):
        raise StuckError(
            f"group {name}: partitions {', '.join(map(str, truncated))} end before the offset that is committed, and "
            "what is written now is not read: reset the group's offset (kafka-consumer-groups.sh --reset-offsets)"
        )
    waiting = {
        partition: seen
        for partition, seen in before.items()
        if seen.lag and group.holds_record(*partition, seen.next, seen.end)
    }
    limit_s = settings.kafka.session_timeout_s + MARGIN_S
    deadline = time.monotonic() + limit_s
    frozen = waiting
    while frozen and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now = group.offsets(led, some=True)
        frozen = {p: seen for p, seen in frozen.items() if p in now and now[p].committed == seen.committed}
    if frozen:
        raise StuckError(_frozen(name, limit_s, frozen, members))
    lag = sum(seen.lag for seen in before.values())
    said = f"group {name}: {len(members)} workers, {len(there)} partitions, {lag} records behind, commits move"
    away = len(there) - len(before)
    return f"{said}; {away} partitions have no leader that answers" if away else said


def _frozen(name: str, limit_s: float, frozen: Mapping[Partition, Offsets], members: Mapping[str, set[int]]) -> str:
    numbers = sorted(number for _, number in frozen)
    owners = sorted(member for member, owned in members.items() if owned.intersection(numbers)) or ["nobody"]
    records = sum(seen.lag for seen in frozen.values())
    return (
        f"group {name}: {records} records wait in partitions {', '.join(map(str, numbers))} and nothing was committed "
        f"for {limit_s:g} s; they belong to {', '.join(owners)}"
    )
