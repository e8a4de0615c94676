"""The watchdog's judgement and its deadline; on a real Kafka in tests/integration/test_worker_stuck.py."""

import queue

import pytest
from confluent_kafka import Producer

from ecgwatch import kafka
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Kafka, Settings, Topics, Worker
from ecgwatch.group import Group, Offsets
from ecgwatch.watchdog import Progress, Watchdog

HERE = ("beats", 0)
WAITING = Offsets(low=0, end=10, committed=4)


def test_a_partition_with_records_waiting_and_no_commit_is_stuck_for_as_long_as_that_lasts():
    progress = Progress()
    for _ in range(4):
        progress.advance({HERE: WAITING}, 1.0)
    assert progress.stuck_s == {HERE: 3.0}  # the first look has nothing to compare with


def test_a_commit_ends_being_stuck():
    progress = Progress()
    progress.advance({HERE: WAITING}, 1.0)
    progress.advance({HERE: WAITING}, 1.0)
    progress.advance({HERE: WAITING._replace(committed=5)}, 1.0)
    assert progress.stuck_s == {}


def test_an_idle_partition_is_not_stuck():
    progress = Progress()
    for _ in range(3):
        progress.advance({HERE: WAITING._replace(committed=10)}, 1.0)
    assert progress.stuck_s == {}


def test_one_stuck_partition_is_seen_among_others_that_move():
    progress = Progress()
    for number in range(3):
        progress.advance({HERE: WAITING, ("beats", 1): WAITING._replace(committed=number)}, 1.0)
    assert progress.stuck_s == {HERE: 2.0}


def test_for_somebody_without_partitions_a_commit_of_one_is_progress_of_all():
    progress = Progress()
    for number in range(3):
        seen = {HERE: WAITING, ("beats", 1): WAITING._replace(committed=number)}
        progress.advance(seen, 1.0, together=True)
    assert progress.stuck_s == {}
    progress.advance(seen, 1.0, together=True)
    assert progress.stuck_s == dict.fromkeys(seen, 1.0)


def test_an_outage_or_a_new_assignment_starts_anew():
    progress = Progress()
    progress.advance({HERE: WAITING}, 1.0)
    progress.advance({HERE: WAITING}, 1.0)
    progress.forget()
    progress.advance({HERE: WAITING}, 1.0)
    assert progress.stuck_s == {}


def test_what_retention_deleted_does_not_count_as_waiting():
    assert Offsets(low=10, end=10, committed=4).lag == 0


def test_a_partition_without_a_commit_waits_from_its_beginning():
    assert Offsets(low=3, end=10, committed=None).lag == 7


def quick() -> Settings:
    return Settings(kafka=Kafka(brokers="127.0.0.1:9"), worker=Worker(stop_timeout_s=0.2))


def test_a_worker_that_does_not_stop_in_time_is_ended_as_stuck():
    ended: queue.Queue[int] = queue.Queue()
    watchdog = Watchdog(quick(), end=ended.put)
    watchdog.start()
    watchdog.stopping()
    assert ended.get(timeout=5) == 75
    watchdog.close()


def test_a_failed_worker_that_does_not_stop_in_time_is_ended_with_the_code_of_its_failure():
    ended: queue.Queue[int] = queue.Queue()
    watchdog = Watchdog(quick(), end=ended.put)
    watchdog.start()
    watchdog.stopping(70)
    assert ended.get(timeout=5) == 70
    watchdog.close()


def test_a_worker_that_fails_while_it_stops_and_hangs_then_is_ended_with_the_code_of_its_failure():
    ended: queue.Queue[int] = queue.Queue()
    watchdog = Watchdog(quick(), end=ended.put)
    watchdog.stopping()
    watchdog.stopping(70)
    watchdog.start()
    assert ended.get(timeout=5) == 70
    watchdog.close()


def test_a_worker_that_does_not_finish_what_it_gives_back_is_ended_as_stuck_whatever_others_commit():
    ended: queue.Queue[int] = queue.Queue()
    with embedded_broker(["ecg-beats"]) as address:
        watchdog = Watchdog(Settings(kafka=Kafka(brokers=address), worker=Worker(stuck_after_s=2)), end=ended.put)
        watchdog.assign([("ecg-beats", 0)])
        watchdog.start()
        with watchdog.giving_back():
            assert ended.get(timeout=20) == 75
        watchdog.close()


def test_a_watchdog_that_fails_itself_ends_the_worker(caplog: pytest.LogCaptureFixture):
    ended: queue.Queue[int] = queue.Queue()
    with embedded_broker(["beats"]) as address:
        watchdog = Watchdog(Settings(kafka=Kafka(brokers=address), topics=Topics(beats="beats")), end=ended.put)
        watchdog._say_leaderless = lambda numbers: 1 / 0
        watchdog.start()
        assert ended.get(timeout=20) == 75
    watchdog.close()
    assert "the watchdog failed (ZeroDivisionError at test_watchdog.py:" in caplog.text


def put(address: str, count: int) -> None:
    """Records on partition 0."""
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    for _ in range(count):
        producer.produce("ecg-beats", value=b"x", partition=0)
    assert producer.flush(10) == 0


@pytest.mark.parametrize("its", [True, False], ids=["its own", "another's"])
def test_of_records_that_nobody_commits_the_worker_that_has_them_is_ended_and_others_wait_for_that(its: bool):
    ended: queue.Queue[int] = queue.Queue()
    with embedded_broker(["ecg-beats"]) as address:
        put(address, 1)
        watchdog = Watchdog(Settings(kafka=Kafka(brokers=address), worker=Worker(stuck_after_s=1)), end=ended.put)
        if its:
            watchdog.assign([("ecg-beats", 0)])
        watchdog.start()
        if its:
            assert ended.get(timeout=20) == 75
        else:
            with pytest.raises(queue.Empty):
                ended.get(timeout=6)  # session_timeout_s and more
        watchdog.close()


def test_a_broker_that_does_not_answer_ends_no_worker_however_long(monkeypatch, caplog):
    monkeypatch.setattr(kafka, "REQUEST_TIMEOUT_S", 0.3)
    ended: queue.Queue[int] = queue.Queue()
    settings = Settings(kafka=Kafka(brokers="127.0.0.1:9"), worker=Worker(stuck_after_s=1))
    watchdog = Watchdog(settings, end=ended.put)
    watchdog.assign([("ecg-beats", 0)])
    watchdog.start()
    with pytest.raises(queue.Empty):
        ended.get(timeout=5)
    watchdog.close()
    assert caplog.messages == ["broker 127.0.0.1:9 does not answer: waiting for it, nothing is lost"]


def test_a_record_at_the_end_asked_for_is_none_that_lies_before_it():
    with embedded_broker(["ecg-beats"]) as address:
        put(address, 3)
        group = Group(Settings(kafka=Kafka(brokers=address)))
        assert [group.holds_record("ecg-beats", 0, first, 2) for first in (0, 1, 2)] == [True, True, False]
        group.close()
