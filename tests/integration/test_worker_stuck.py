"""What looks alive and is stuck: the watchdog ends it, `ecgwatch check` tells it from outside."""

import signal
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ecgwatch.watchdog import MARGIN_S
from tests.integration.conftest import Cluster
from tests.integration.odd_worker import BEGUN, LONG_BATCH_S
from tests.integration.traffic import SESSION_S, Site, until

pytestmark = pytest.mark.kafka
ODD = str(Path(__file__).with_name("odd_worker.py"))


def test_the_watchdog_ends_a_worker_whose_commits_are_frozen_with_75(site: Site):
    worker = site.worker(ODD, "hangs", worker_stuck_after_s="3").ready()
    site.sender().send(1)
    assert worker.exit_code() == 75
    assert "ERROR stuck: 1 records wait in partition " in worker.log.splitlines()[-1]


def test_check_passes_on_a_worker_that_works_and_says_so(site: Site):
    worker = site.worker().ready()
    sender = site.sender()
    with sender.at_rate(20):
        until(lambda: site.scored(), 10, "beats are scored")
        done = site.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"group {site.group}: 1 workers, 6 partitions, ")
    assert done.stdout.count("\n") == 1
    assert worker.stop()[0] == 0


def test_check_fails_on_frozen_commits(site: Site):
    site.worker(ODD, "hangs").ready()
    site.sender().send(3)
    done = site.check()
    assert (done.returncode, done.stdout) == (75, "")
    assert "records wait in partitions" in done.stderr
    assert "and nothing was committed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_fails_on_a_worker_stopped_by_sigstop(site: Site):
    worker = site.worker().ready()
    worker.send(signal.SIGSTOP)
    until(lambda: site.check().returncode == 75, 4 * SESSION_S, "check fails")
    assert f"group {site.group} has no members" in site.check().stderr


def test_check_without_a_broker_is_one_line(site: Site):
    done = site.check(kafka_brokers="127.0.0.1:9")
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1


def test_markers_of_transactions_are_no_lost_beats_and_no_stuck_worker(site: Site):
    worker = site.worker(worker_stuck_after_s="2").ready()
    producer = Producer({"bootstrap.servers": site.brokers, "transactional.id": site.group, "log_level": 0})
    producer.init_transactions(20)
    for _ in range(3):
        producer.begin_transaction()
        producer.produce(site.beats, key="patient", value=b"no beat", partition=0)
        producer.commit_transaction(20)
    until(lambda: len(site.read(site.dead_letters)) == 3, 10, "the messages are handled")
    with pytest.raises(AssertionError):
        until(lambda: worker.process.poll() is not None, 5, "the worker ends")
    assert "lost" not in worker.log
    assert site.check().returncode == 0
    assert worker.stop()[0] == 0


def test_a_transaction_that_stays_open_is_no_truncated_log(site: Site):
    worker = site.worker(worker_stuck_after_s="2").ready()
    producer = Producer({"bootstrap.servers": site.brokers, "transactional.id": site.group, "log_level": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    for _ in range(5):
        producer.produce(site.beats, key="patient", value=b"no beat", partition=0)
    assert producer.flush(20) == 0
    until(lambda: len(site.read(site.dead_letters)) == 5, 10, "the messages are handled")
    with pytest.raises(AssertionError):
        until(lambda: worker.process.poll() is not None, 5, "the worker ends")
    assert site.check().returncode == 0
    producer.abort_transaction(20)
    assert worker.stop()[0] == 0


def test_a_beat_topic_that_is_deleted_ends_the_worker_with_69_and_its_name(site: Site):
    worker = site.worker(worker_stuck_after_s="3").ready()
    admin = AdminClient({"bootstrap.servers": site.brokers, "log_level": 0})
    for done in admin.delete_topics([site.beats]).values():
        done.result(timeout=20)
    assert worker.exit_code(30) == 69
    last = worker.log.splitlines()[-1]
    assert "still so after" in last
    assert f"no topic {site.beats}" in last


def test_a_log_that_ends_before_the_committed_offset_ends_the_worker_with_one_line(site: Site):
    consumer = Consumer({"bootstrap.servers": site.brokers, "group.id": site.group, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(site.beats, 2, 100)], asynchronous=False)
    consumer.close()
    worker = site.worker()
    assert worker.exit_code() == 75
    assert "ERROR truncated: partition 2 ends at offset 0, the group has committed 100" in worker.log.splitlines()[-1]
    done = site.check()  # where a supervisor starts it again and again, the group has members
    assert done.returncode == 75
    assert "partitions 2 end before the offset that is committed" in done.stderr


def test_a_session_timeout_that_the_broker_refuses_ends_the_worker_with_78_the_key_and_the_limits(site: Site):
    worker = site.worker(kafka_session_timeout_s="0.5", kafka_heartbeat_s="0.1")
    assert worker.exit_code(30) == 78
    assert worker.log.splitlines()[-1] == (
        "ecgwatch: [kafka] session_timeout_s = 0.5: the broker takes 1 to 1800 s "
        "(group.min.session.timeout.ms, group.max.session.timeout.ms)"
    )


def test_a_group_that_another_program_uses_ends_the_worker_with_69_and_what_to_do(site: Site):
    other = Consumer({"bootstrap.servers": site.brokers, "group.id": site.group, "log_level": 0})
    other.subscribe([site.beats])
    until(lambda: other.poll(0.1) is None and other.assignment(), 20, "the other has joined")
    worker = site.worker()
    until(lambda: other.poll(0.1) is None and worker.process.poll() is not None, 30, "the worker ends")
    other.close()
    assert worker.exit_code() == 69
    assert worker.log.splitlines()[-1].startswith(f"ecgwatch: group {site.group} is used by another program")


def test_a_batch_that_hangs_when_a_worker_joins_ends_the_first_with_75_and_the_second_scores_its_beats(site: Site):
    first = site.worker(ODD, "hangs", worker_stuck_after_s="8").ready()
    sender = site.sender()
    sender.send(1)
    first.says(BEGUN)
    second = site.worker(worker_stuck_after_s="8")
    assert first.exit_code(40) == 75
    second.says("partitions: ", 40)
    site.all_committed()
    assert set(site.scored()) == sender.ids
    assert second.stop()[0] == 0


def test_a_worker_without_a_partition_stays_while_the_other_commits(kafka: Cluster, tmp_path: Path):
    with Site(kafka.brokers, tmp_path, partitions=1) as site:
        first = site.worker().ready()
        second = site.worker(worker_stuck_after_s="1").ready()
        until(lambda: "partitions: none" in first.log + second.log, 20, "one has none")
        with site.sender().at_rate(20):
            time.sleep(1 + SESSION_S + MARGIN_S + 4)
        assert [worker.stop()[0] for worker in (first, second)] == [0, 0]


def test_a_worker_that_joins_while_a_long_batch_holds_up_the_rebalance_stays(site: Site):
    first = site.worker(ODD, "slow").ready()
    sender = site.sender()
    sender.send(1)
    first.says(BEGUN)
    second = site.worker(worker_stuck_after_s="3")
    second.says("partitions: ", 3 * LONG_BATCH_S)
    site.all_committed()
    assert site.scored() == sorted(sender.ids)
    assert [worker.stop()[0] for worker in (first, second)] == [0, 0]
