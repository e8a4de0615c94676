"""Workers and brokers that die: every beat sent is scored."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.kafka_server import Kafka
from tests.integration.traffic import SESSION_S, Site

pytestmark = pytest.mark.kafka
PER_S = 100


@pytest.fixture
def broker(start_kafka: Callable[..., Kafka]) -> Kafka:
    # a killed broker is let in again when its old registration has timed out
    return start_kafka(settings={"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"})


@pytest.fixture
def own(broker: Kafka, tmp_path: Path) -> Iterator[Site]:
    """A site on a broker of the test's own."""
    with Site(broker.brokers, tmp_path) as site:
        yield site


def test_repeated_kill_9_of_workers_loses_no_beat(site: Site):
    sender = site.sender()
    workers = [site.worker().ready(), site.worker().ready()]
    with sender.at_rate(PER_S):
        for victim in (workers[0], workers[1], workers[0]):
            time.sleep(1.5)
            victim.kill()
            victim.start().ready()
    site.all_committed()
    assert set(site.scored()) == sender.ids


def test_a_worker_stopped_beyond_the_session_timeout_loses_no_beat_and_goes_on(site: Site):
    sender = site.sender()
    workers = [site.worker().ready(), site.worker().ready()]
    with sender.at_rate(PER_S):
        time.sleep(1)
        workers[0].send(signal.SIGSTOP)
        time.sleep(3 * SESSION_S)
        workers[0].send(signal.SIGCONT)
        time.sleep(3)
    site.all_committed()
    assert set(site.scored()) == sender.ids
    assert [worker.stop()[0] for worker in workers] == [0, 0], workers[0].log[-3000:]


def test_a_broker_restart_loses_and_repeats_no_beat_and_is_said_in_a_few_lines(broker: Kafka, own: Site):
    sender = own.sender()
    workers = [own.worker().ready(), own.worker().ready()]
    with sender.at_rate(PER_S):
        time.sleep(1)
        broker.stop()
        for worker in workers:
            worker.says("does not answer")
        broker.start()
        for worker in workers:
            worker.says("answers again")
    own.all_committed()
    ids = own.scored()
    assert set(ids) == sender.ids
    assert [worker.log.count("does not answer") for worker in workers] == [1, 1]
    assert max(worker.log.count("\n") for worker in workers) < 30
    assert [worker.stop()[0] for worker in workers] == [0, 0]


def test_a_killed_broker_loses_no_beat(broker: Kafka, own: Site):
    sender = own.sender()
    worker = own.worker().ready()
    with sender.at_rate(PER_S):
        time.sleep(1)
        broker.kill()
        worker.says("does not answer")
        broker.start()
        worker.says("answers again")
    own.all_committed()
    assert set(own.scored()) == sender.ids
    assert worker.stop()[0] == 0
