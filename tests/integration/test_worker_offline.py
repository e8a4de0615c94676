"""Parts of a cluster are away while the rest answers: partitions without a leader, an address that leads nowhere."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ecgwatch import cluster, config
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError
from ecgwatch.messages import CONTENT_TYPE, MSGPACK, encode_beats
from tests.integration.kafka_server import Kafka, create_topic, free_ports
from tests.integration.traffic import Site, beat, until

pytestmark = pytest.mark.kafka
ODD = str(Path(__file__).with_name("odd_worker.py"))


class Disks:
    """A broker with two folders for its logs, one of which can go bad."""

    def __init__(self, broker: Kafka, good: Path, bad: Path) -> None:
        self.broker = broker
        self._good = good
        self._bad = bad

    def on_bad(self, topic: str) -> set[int]:
        """The partitions of a topic that are on the one that can go bad."""
        folders = [self._bad / f"{topic}-{number}" for number in range(6)]
        others = [self._good / folder.name for folder in folders]
        until(lambda: sum(folder.exists() for folder in folders + others) == len(folders), 20, "they are made")
        return {number for number, folder in enumerate(folders) if folder.exists()}

    def go_bad(self, *topics: str) -> None:
        """Make it unusable; the broker notices at the first record of a partition: these topics must be empty."""
        lost = {topic: self.on_bad(topic) for topic in topics}
        time.sleep(3)  # a broker tells its controller after a moment on which folder a new partition is
        self._bad.rename(self._bad.with_suffix(".gone"))
        self._bad.write_text("no folder")
        producer = Producer({"bootstrap.servers": self.broker.brokers, "log_level": 0, "message.timeout.ms": 2000})
        for topic, numbers in lost.items():
            for number in numbers:
                producer.produce(topic, b"no beat", b"p", partition=number)
        producer.flush(10)
        until(lambda: all(leaderless(producer, topic) == lost[topic] for topic in topics), 20, "they have no leader")


def leaderless(producer: Producer, topic: str) -> set[int]:
    found = producer.list_topics(topic, timeout=20).topics[topic].partitions
    return {number for number, partition in found.items() if partition.leader < 0}


@pytest.fixture
def disks(start_kafka: Callable[..., Kafka], tmp_path: Path) -> Disks:
    folders = [tmp_path / name for name in ("disk0", "disk1")]
    broker = start_kafka(
        settings={"log.dirs": ",".join(map(str, folders)), "metadata.log.dir": str(tmp_path / "metadata")}
    )
    bad, good = sorted(folders, key=lambda folder: len(list(folder.glob("__consumer_offsets-*"))))
    return Disks(broker, good, bad)


@pytest.fixture
def site(disks: Disks, tmp_path: Path) -> Iterator[Site]:
    """A site of which some partitions are on the folder that can go bad."""
    with Site(disks.broker.brokers, tmp_path) as site:
        yield site


def test_a_partition_without_a_leader_is_said_and_hides_no_batch_that_hangs_on_another(disks: Disks, site: Site):
    lost = sorted(disks.on_bad(site.beats))
    (good, *_) = set(range(6)).difference(lost)
    disks.go_bad(site.beats)
    worker = site.worker(ODD, "hangs", worker_stuck_after_s="4").ready()
    worker.says(f"partitions {', '.join(map(str, lost))} have no leader")
    healthy = site.check()
    assert (healthy.returncode, f"; {len(lost)} partitions have no leader" in healthy.stdout) == (0, True)
    send(site, good)
    assert worker.exit_code(60) == 75
    assert f"ERROR stuck: 1 records wait in partition {good} " in worker.log.splitlines()[-1]


def test_typical_beats_that_cannot_be_read_are_said_and_end_the_worker_with_75(disks: Disks, site: Site):
    while not (good := disks.on_bad(site.baselines) - disks.on_bad(site.beats)):  # where the broker put them so
        site.baselines = create_topic(site.brokers, f"{site.baselines}-again", 6)
    disks.go_bad(site.beats, site.baselines)
    worker = site.worker(worker_stuck_after_s="15").ready()
    number = min(good)
    send(site, number)
    assert worker.exit_code(60) == 75
    assert f"beats wait for the typical beats of partition {number}: " in worker.log


def send(site: Site, partition: int) -> None:
    """Send a beat to a partition."""
    producer = Producer({"bootstrap.servers": site.brokers, "log_level": 0})
    one = beat(0)
    headers = [(CONTENT_TYPE, MSGPACK.encode())]
    producer.produce(site.beats, encode_beats([one], MSGPACK), one.patient, partition=partition, headers=headers)
    assert producer.flush(20) == 0


def test_a_coordinator_at_an_address_that_leads_nowhere_is_said_and_ends_the_worker_with_69(
    kafka_jars: Path, tmp_path: Path
):
    broker = Kafka(tmp_path / "kafka")
    asked_first, nowhere = (f"127.0.0.1:{port}" for port in free_ports(2))
    properties = broker._properties()
    broker.settings |= {
        "listeners": f"{properties['listeners']},WRONG://{asked_first}",
        "advertised.listeners": f"PLAINTEXT://{broker.brokers},WRONG://{nowhere}",
        "listener.security.protocol.map": f"{properties['listener.security.protocol.map']},WRONG:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    try:
        with Site(broker.start().brokers, tmp_path) as site:
            worker = site.worker(kafka_brokers=asked_first, kafka_start_timeout_s="5")
            assert worker.exit_code(60) == 69  # wherever it met that address first
            settings = Settings(
                kafka=config.Kafka(brokers=asked_first, group=site.group, start_timeout_s=1.0),
                topics=config.Topics(beats=site.beats),
            )
            with pytest.raises(BrokerError, match=r"does not tell the offsets of group .* advertised.listeners"):
                cluster.wait_for_group(settings)
    finally:
        broker.kill()
