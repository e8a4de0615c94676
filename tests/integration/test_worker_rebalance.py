"""Workers that come and go in good order score no beat twice and miss none."""

import asyncio
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from ecgwatch import config
from ecgwatch.batch import Record
from ecgwatch.config import Settings
from ecgwatch.kafka import METADATA_MAX_AGE_S
from ecgwatch.output import Publisher
from tests.integration.conftest import Cluster
from tests.integration.traffic import Site, repeats

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    ("per_s", "backlog"),
    [(20, 0), (1000, 0), (200, 6000)],
    ids=["at 20 a second", "at 1000 a second", "with a backlog"],
)
def test_join_restart_and_leave_repeat_less_than_one_in_a_hundred_beats_and_lose_none(
    site: Site, per_s: int, backlog: int
):
    sender = site.sender()
    sender.send(backlog + 20)
    first = site.worker().ready()
    moments = []
    with sender.at_rate(per_s):
        second = site.worker().ready()  # join
        moments.append(time.monotonic())
        time.sleep(1)
        assert first.stop()[0] == 0  # leave
        moments.append(time.monotonic())
        first.start().ready()  # restart
        moments.append(time.monotonic())
        time.sleep(1)
        assert second.stop()[0] == 0
        moments.append(time.monotonic())
        time.sleep(1)
    site.all_committed()
    ids = site.scored()
    assert set(ids) == sender.ids
    again = repeats(ids)
    assert len(again) < 0.01 * len(sender.around(*moments)), f"{len(again)} repeats"


def test_a_record_is_published_to_a_partition_that_was_added_a_moment_ago(kafka: Cluster):
    topic = kafka.create_topic()
    settings = Settings(kafka=config.Kafka(brokers=kafka.brokers))

    async def publish() -> None:
        publisher = Publisher(settings)
        await publisher.publish([Record(topic, b"p", b"1", partition=0)])  # now it knows of one partition
        admin = AdminClient({"bootstrap.servers": kafka.brokers})
        for done in admin.create_partitions([NewPartitions(topic, 2)]).values():
            done.result(timeout=20)
        await publisher.publish([Record(topic, b"p", b"2", partition=1)])
        publisher.close()

    asyncio.run(publish())


def test_partitions_that_are_added_are_scored_and_too_few_for_typical_beats_end_the_worker(
    kafka: Cluster, tmp_path: Path
):
    """Both at once, since both wait for clients to notice."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "lacking").mkdir()
    with Site(kafka.brokers, tmp_path / "whole") as whole, Site(kafka.brokers, tmp_path / "lacking") as lacking:
        workers = [site.worker().ready() for site in (whole, lacking)]
        before = whole.sender()
        before.send(60)
        admin = AdminClient({"bootstrap.servers": kafka.brokers})
        grown = [NewPartitions(name, 8) for name in (whole.beats, whole.baselines, lacking.beats)]
        for done in admin.create_partitions(grown).values():
            done.result()
        after = whole.sender()  # one that knows of them
        after.sent = before.sent[:]
        after.send(240)
        lacking.sender().send(240)
        workers[0].says("partitions: 0, 1, 2, 3, 4, 5, 6, 7", METADATA_MAX_AGE_S + 30)
        whole.all_committed()
        assert set(whole.scored()) == after.ids
        assert {record.partition() for record in whole.read(whole.beats)} >= {6}
        assert "does not answer" not in workers[0].log
        assert workers[0].stop()[0] == 0
        assert {record.partition() for record in whole.read(whole.baselines)} >= {6}
        assert workers[1].exit_code(60) == 69
        assert f"topic {lacking.baselines} has 6 partitions and {lacking.beats} has 8" in workers[1].log
