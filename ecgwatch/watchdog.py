"""Ends a worker that looks alive and is stuck; in a thread of its own, with clients of its own.

It trusts nothing of the worker but which partitions it was given: what counts is that committed offsets move while
records wait. A blocked event loop, a lost consumer or a commit that fails for ever all look the same from here. The
partitions are watched until the worker has finished what it had begun of them, and that may take `stuck_after_s` too:
another one may commit them by then. A worker without partitions watches all of them: one that waits for its turn sees
the others commit, one that the group does not let in may be the only one.

A broker that does not answer is a state of its own: said when it begins and when it ends, and no time of it counts as
stuck; nor does any of a partition that has no leader, while the others are watched. Two other states end the worker
after `stuck_after_s`: a broker that does not let it in any more (user, password, certificate, ACL), and a beat topic
that was deleted, of which Faust says that there are no partitions and no more.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaException

from ecgwatch import logs
from ecgwatch.config import Settings
from ecgwatch.errors import AccessError, BrokerError, StuckError
from ecgwatch.group import Group, Offsets, Partition
from ecgwatch.logs import log

INTERVAL_S = 1.0
MARGIN_S = 5.0
FORCE_BEFORE_S = 0.4  # a forced end must be over when stop_timeout_s is


@dataclass
class Progress:
    """For how long each partition has had records waiting and no commit, seconds."""

    stuck_s: dict[Partition, float] = field(default_factory=dict)
    _committed: dict[Partition, int | None] = field(default_factory=dict)

    def advance(self, offsets: Mapping[Partition, Offsets], elapsed_s: float, *, together: bool = False) -> None:
        """Take what was seen now, `elapsed_s` after the last time.

        together: a commit of one partition is progress of all, as for somebody who has none of them.
        """
        before, self._committed = self._committed, {p: seen.committed for p, seen in offsets.items()}
        if together and any(before[p] != seen.committed for p, seen in offsets.items() if p in before):
            self.stuck_s = {}
            return
        self.stuck_s = {
            partition: self.stuck_s.get(partition, 0.0) + elapsed_s
            for partition, seen in offsets.items()
            if seen.lag and partition in before and before[partition] == seen.committed
        }

    def forget(self) -> None:
        """Start anew, as after an outage or with other partitions."""
        self.stuck_s, self._committed = {}, {}


class Watchdog:
    """Watches one worker; `start`, tell it the partitions, `stopping` when the worker is to stop, `close`."""

    def __init__(self, settings: Settings, end: Callable[[int], object] = os._exit) -> None:
        """end: ends the process at once with an exit code; os._exit, as nothing else is sure to come back."""
        self._settings = settings
        self._end = end
        self._assigned: frozenset[Partition] = frozenset()
        self._giving_back = False
        self._giving_back_s = 0.0
        self._leaderless: list[int] = []
        self._away: tuple[float, bool, int] | None = None  # since when, whether shut out, the exit code of that
        self._closed = threading.Event()
        # SimpleQueue.put, unlike Event.set, may be called by a signal handler at any moment
        self._stop_requests: queue.SimpleQueue[tuple[float, int | None]] = queue.SimpleQueue()
        self._threads = (
            threading.Thread(target=self._watch_or_end, name="watchdog", daemon=True),
            threading.Thread(target=self._enforce, name="stop deadline", daemon=True),
        )

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Tell which partitions the worker has now; may be called from any thread."""
        self._assigned = frozenset(partitions)

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """The group takes the partitions back: within the block the worker finishes what it has begun of them."""
        self._giving_back = True
        try:
            yield
        finally:
            self._giving_back = False
        self._assigned = frozenset()  # only where it has finished: else they are still to be watched

    def stopping(self, exit_code: int | None = None) -> None:
        """End the process when the worker has not stopped within stop_timeout_s. May be called by a signal handler.

        exit_code: why it stops, where that is an error that was already said.
        """
        limit_s = self._settings.worker.stop_timeout_s
        self._stop_requests.put((time.monotonic() + limit_s - min(FORCE_BEFORE_S, limit_s / 2), exit_code))

    def close(self) -> None:
        """The worker has stopped; the threads end with the process."""
        self._closed.set()

    def _enforce(self) -> None:
        stop_by, exit_code = self._stop_requests.get()
        if self._closed.wait(max(0.0, stop_by - time.monotonic())):
            return
        while exit_code is None and not self._stop_requests.empty():  # it failed while it stopped, and said so
            _, exit_code = self._stop_requests.get()
        if exit_code is None:
            why, exit_code = "a batch or the group's goodbye is still under way", StuckError.exit_code
            if (away := self._away) is not None:
                why, exit_code = "no broker answers", away[2]
            log.error("not stopped within %g s (%s): ending now", self._settings.worker.stop_timeout_s, why)
        self._end(exit_code)

    def _watch_or_end(self) -> None:
        """Watch; where that fails, end the process: a worker that nobody watches could be stuck for ever."""
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread would end and nobody notice
            log.error("the watchdog failed (%s): ending, exit code %d", logs.where(error), StuckError.exit_code)
            self._end(StuckError.exit_code)

    def _watch(self) -> None:
        group, progress, assigned = Group(self._settings), Progress(), self._assigned
        last = time.monotonic()
        while not self._closed.wait(INTERVAL_S):
            if assigned != self._assigned:
                assigned = self._assigned
                progress.forget()
            try:
                led = group.partitions(self._settings.topics.beats, led=True)
                own = [p for p in led if not assigned or (p.topic, p.partition) in assigned]
                offsets = group.offsets(own, some=True)
                now = time.monotonic()
                self._back(now)
                # a process that was stopped or a machine that slept was not stuck: one look counts for little
                elapsed_s, last = min(now - last, 2 * INTERVAL_S), now
                self._giving_back_s = self._giving_back_s + elapsed_s if self._giving_back else 0.0
                self._say_leaderless([number for _, number in sorted(assigned - offsets.keys())])
                progress.advance(offsets, elapsed_s, together=not assigned)
                if not assigned and progress.stuck_s and group.rebalances():
                    progress.forget()
                self._judge(group, progress, offsets, others=not assigned)
            except (KafkaException, BrokerError) as error:  # the second: there is no such topic
                last = time.monotonic()
                self._giving_back_s = 0.0
                progress.forget()
                why = group.problem(error) if isinstance(error, KafkaException) else error
                self._no_answer(last, why, shut_out=why is error or isinstance(why, AccessError))

    def _judge(self, group: Group, progress: Progress, offsets: Mapping[Partition, Offsets], *, others: bool) -> None:
        """others: the partitions are not this worker's."""
        limit_s = self._settings.worker.stuck_after_s
        if self._giving_back_s >= limit_s:
            log.error(
                "stuck: the group took the partitions back %.0f s ago and what was begun is not committed: ending, "
                "exit code %d",
                self._giving_back_s,
                StuckError.exit_code,
            )
            self._end(StuckError.exit_code)
            return
        if others:  # whoever has them is ended first, and the group notices after its session timeout
            limit_s += self._settings.kafka.session_timeout_s + MARGIN_S
        for (_, number), seen in offsets.items():
            if (seen.committed or 0) > seen.end and not others:
                log.error(
                    "truncated: partition %d ends at offset %d, the group has committed %d; what is written now "
                    "would not be read: reset the group's offset (kafka-consumer-groups.sh --reset-offsets)",
                    number,
                    seen.end,
                    seen.committed,
                )
                self._end(StuckError.exit_code)
                return
        for (topic, number), stuck_s in progress.stuck_s.items():
            seen = offsets[topic, number]
            if stuck_s < limit_s:
                continue
            if not group.holds_record(topic, number, seen.next, seen.end):
                continue  # only markers of transactions wait there
            log.error(
                "stuck: %s%d records wait in partition %d and nothing was committed for %.0f s: ending, exit code %d",
                "the group gave this worker no partition, " if others else "",
                seen.lag,
                number,
                stuck_s,
                StuckError.exit_code,
            )
            self._end(StuckError.exit_code)
            return

    def _say_leaderless(self, numbers: list[int]) -> None:
        """Say which of this worker's partitions nobody can read, where that changed."""
        if numbers and numbers != self._leaderless:
            text = ", ".join(map(str, numbers))
            log.warning("partitions %s have no leader that answers: their beats wait for one", text)
        elif self._leaderless and not numbers:
            log.warning("all partitions of this worker have a leader that answers again")
        self._leaderless = numbers

    def _no_answer(self, now: float, why: BrokerError, *, shut_out: bool) -> None:
        """Say it when it begins; where waiting does not help, end the process after stuck_after_s of it."""
        if self._closed.is_set():
            return
        limit_s = self._settings.worker.stuck_after_s
        if self._away is None or self._away[1] != shut_out:
            self._away = now, shut_out, why.exit_code
            if shut_out:
                log.error("%s; ending in %g s if it stays so", why, limit_s)
            else:
                brokers = self._settings.kafka.brokers
                log.warning("broker %s does not answer: waiting for it, nothing is lost", brokers)
        elif shut_out and now - self._away[0] >= limit_s:
            log.error("still so after %.0f s: ending, exit code %d: %s", now - self._away[0], why.exit_code, why)
            self._end(why.exit_code)

    def _back(self, now: float) -> None:
        if self._away is not None:
            log.warning("broker answers again after %.0f s", now - self._away[0])
            self._away = None
