"""Workers as processes of the real command line, and the beats they are given."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from ecgwatch import messages, records
from ecgwatch.messages import CONTENT_TYPE, MSGPACK, Beat
from tests.integration.kafka_server import create_topic

QUIET = {"log_level": 0}
PATIENTS = 24
SESSION_S = 2  # short, so that a crash is noticed within a test


def until(holds: Callable[[], object], within_s: float, what: str) -> None:
    """Wait until something holds; fail with `what` otherwise."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


class Site:
    """Topics and a group of a test's own on a broker, and the workers that use them; they end with the block."""

    def __init__(self, brokers: str, folder: Path, partitions: int = 6) -> None:
        self.brokers = brokers
        suffix = uuid.uuid4().hex[:8]
        self.group = f"workers-{suffix}"
        self.beats, self.scores, self.alerts, self.dead_letters, self.baselines = (
            create_topic(brokers, f"{name}-{suffix}", partitions)
            for name in ("beats", "scores", "alerts", "dead", "baselines")
        )
        self._folder = folder
        self._workers: list[Worker] = []
        # a consumer that never joins: librdkafka's admin client crashes on OffsetFetch while a coordinator moves
        # (librdkafka issue 5040), as it does on a fresh broker
        self._outside = Consumer(QUIET | {"bootstrap.servers": brokers, "group.id": self.group})

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._outside.close()

    @property
    def environment(self) -> dict[str, str]:
        """The settings that every worker here has, over those of this process."""
        here = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("ECGWATCH_DATA") or "ECGWATCH" not in name
        }
        return here | {
            "ECGWATCH_KAFKA_BROKERS": self.brokers,
            "ECGWATCH_KAFKA_GROUP": self.group,
            "ECGWATCH_KAFKA_SESSION_TIMEOUT_S": str(SESSION_S),
            "ECGWATCH_KAFKA_HEARTBEAT_S": "0.5",
            "ECGWATCH_TOPICS_BEATS": self.beats,
            "ECGWATCH_TOPICS_SCORES": self.scores,
            "ECGWATCH_TOPICS_ALERTS": self.alerts,
            "ECGWATCH_TOPICS_DEAD_LETTERS": self.dead_letters,
            "ECGWATCH_TOPICS_BASELINES": self.baselines,
        }

    def worker(self, *arguments: str, **settings: str) -> "Worker":
        """Start a worker; settings by their environment variables without the prefix."""
        mine = {f"ECGWATCH_{key.upper()}": value for key, value in settings.items()}
        log_file = self._folder / f"worker{len(self._workers)}.log"
        worker = Worker(log_file, self.environment | mine, arguments or ("-m", "ecgwatch", "worker"))
        self._workers.append(worker)
        return worker.start()

    def check(self, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run `ecgwatch check`; settings as for `worker`."""
        mine = {f"ECGWATCH_{key.upper()}": value for key, value in settings.items()}
        command = [sys.executable, "-m", "ecgwatch", "check"]
        return subprocess.run(
            command, env=self.environment | mine, capture_output=True, text=True, timeout=60, check=False
        )

    def sender(self) -> "Sender":
        return Sender(self.brokers, self.beats)

    def scored(self) -> list[str]:
        """The ids on the score topic, repeats included."""
        return [messages.decode_score(message.value()).id for message in self.read(self.scores)]

    def read(self, topic: str) -> list[Message]:
        """Return all messages that a topic holds now."""
        consumer = Consumer(QUIET | {"bootstrap.servers": self.brokers, "group.id": "reader"})
        partitions = [
            TopicPartition(topic, n) for n in consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ]
        marks = {p.partition: consumer.get_watermark_offsets(p, timeout=20) for p in partitions}
        consumer.assign([TopicPartition(topic, number, low) for number, (low, _) in marks.items()])
        unread = {number: end for number, (low, end) in marks.items() if low < end}
        found = []
        while unread:
            message = consumer.poll(20)
            assert message is not None and message.error() is None, f"topic {topic} cannot be read"
            number, offset = message.partition() or 0, message.offset() or 0
            found.append(message)
            if offset + 1 >= unread.get(number, 0):
                unread.pop(number, None)
        consumer.close()
        return found

    def lag(self) -> int:
        """How many records of the beat topic the group has not committed."""
        numbers = self._outside.list_topics(self.beats, timeout=20).topics[self.beats].partitions
        lag = 0
        for p in self._outside.committed([TopicPartition(self.beats, number) for number in numbers], timeout=20):
            _, end = self._outside.get_watermark_offsets(p, timeout=20)
            lag += end - max(0, p.offset)
        return lag

    def all_committed(self, within_s: float = 30.0) -> None:
        """Wait until the group has committed everything sent."""
        until(lambda: self.lag() == 0, within_s, "the commits reach the end of the log")


@dataclass
class Worker:
    """A worker's process; its log goes to a file."""

    log_file: Path
    environment: dict[str, str]
    arguments: tuple[str, ...]

    def start(self) -> "Worker":
        """Start it, again after it ended."""
        self._from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments], env=self.environment, stdout=log, stderr=log
            )
        return self

    @property
    def log(self) -> str:
        """What it said since the last start."""
        return self.log_file.read_bytes()[self._from :].decode()

    def says(self, text: str, within_s: float = 20.0) -> None:
        """Wait until its log holds `text`."""
        deadline = time.monotonic() + within_s
        while text not in self.log:
            assert self.process.poll() is None, f"the worker ended; it said: {self.log[-1500:]}"
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {text!r}; it said: {self.log[-1500:]}"
            time.sleep(0.05)

    def ready(self) -> "Worker":
        """Wait until the group has answered it."""
        self.says("partitions: ")
        return self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self, within_s: float = 15.0) -> int:
        """Wait until it ends."""
        return self.process.wait(within_s)

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and how long it took, seconds."""
        start = time.monotonic()
        self.send(signal.SIGTERM)
        return self.exit_code(), time.monotonic() - start

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@cache
def templates() -> list[Beat]:
    """Beats of a real record that the default model's contract takes."""
    with resources.as_file(resources.files("ecgwatch.demo") / "excerpts" / "233.npz") as path:
        return records.beats_of(records.read_excerpt(path), "p")[2:60]


def beat(number: int) -> Beat:
    """The beat of this number: its time is the number, its patient one of PATIENTS."""
    source = templates()[number % len(templates())]
    return replace(source, patient=f"patient-{number % PATIENTS}", r_time_ms=number)


class Sender:
    """Publishes numbered beats and knows their ids; every beat is acknowledged by the broker in the end."""

    def __init__(self, brokers: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            QUIET
            | {
                "bootstrap.servers": brokers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self.sent: list[tuple[str, float]] = []  # id, time

    @property
    def ids(self) -> set[str]:
        """All that were sent."""
        return {id_ for id_, _ in self.sent}

    def around(self, *moments: float, within_s: float = 10.0) -> set[str]:
        """The ids of the beats sent around these moments."""
        return {id_ for id_, at in self.sent if any(abs(at - moment) <= within_s for moment in moments)}

    def send(self, count: int) -> None:
        """Publish so many beats as fast as it goes."""
        for _ in range(count):
            self._one()
        assert self._producer.flush(30) == 0, "the beats could not be sent"

    @contextmanager
    def at_rate(self, per_s: float) -> Iterator[None]:
        """Publish at a rate within the block; after it all are acknowledged."""
        ended = threading.Event()

        def run() -> None:
            start, count = time.monotonic(), 0
            while not ended.wait(max(0.0, start + count / per_s - time.monotonic())):
                self._one()
                self._producer.poll(0)
                count += 1

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert self._producer.flush(60) == 0, "the beats could not be sent"

    def _one(self) -> None:
        one = beat(len(self.sent))
        value = messages.encode_beats([one], MSGPACK)
        self._producer.produce(self._topic, key=one.patient, value=value, headers=[(CONTENT_TYPE, MSGPACK.encode())])
        self.sent.append((one.id, time.monotonic()))


def repeats(ids: Iterable[str]) -> list[str]:
    """The ids that came again, once for each time."""
    return [id_ for id_, count in Counter(ids).items() for _ in range(count - 1)]
