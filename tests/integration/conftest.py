"""Fixtures: a real Kafka shared by the session, and private ones that a test may kill."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.kafka_server import Kafka, Unavailable, create_topic, jars
from tests.integration.traffic import Site


class Cluster:
    """The broker that tests share; they may create topics on it, nothing else."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers

    def create_topic(self, name: str = "test", partitions: int = 1, **config: str) -> str:
        """Create a topic of its own for this test and return its name, which begins with `name`."""
        return create_topic(self.brokers, f"{name}-{uuid.uuid4().hex[:8]}", partitions, **config)


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Where a broker can be started from; skips with one line where there is nothing (in CI that is a failure)."""
    try:
        return jars()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker for all tests: the one at ECGWATCH_TEST_KAFKA, else one started here."""
    if address := os.environ.get("ECGWATCH_TEST_KAFKA"):
        yield Cluster(address)
        return
    request.getfixturevalue("kafka_jars")
    broker = Kafka(tmp_path_factory.mktemp("kafka")).start()
    yield Cluster(broker.brokers)
    broker.kill()  # nobody needs its data any more


@pytest.fixture
def start_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[Callable[..., Kafka]]:
    """Start private brokers: `start_kafka(users=..., settings=...) -> Kafka`; what still runs is killed at the end."""
    started: list[Kafka] = []

    def start(users: dict[str, str] | None = None, settings: dict[str, str] | None = None) -> Kafka:
        broker = Kafka(tmp_path / f"kafka{len(started)}", users or {}, settings or {})
        started.append(broker)
        return broker.start()

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def site(kafka: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Topics and a group on the shared broker, for workers that leave it alive."""
    with Site(kafka.brokers, tmp_path) as site:
        yield site
