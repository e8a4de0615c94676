"""`ecgwatch replay` and `ecgwatch alerts` on a real Kafka."""

import math
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from ecgwatch import clients, config, messages
from ecgwatch.config import Settings
from ecgwatch.errors import BrokerError
from ecgwatch.messages import Beat
from ecgwatch.records import AFTER_S
from tests.integration.conftest import Cluster
from tests.integration.kafka_server import Kafka, free_ports
from tests.integration.traffic import Site, until
from tests.wfdb_records import excerpt, write_record

pytestmark = pytest.mark.kafka

START_MS = 1_700_000_000_000


@pytest.fixture
def settings(site: Site) -> Settings:
    return config.load(None, {name: value for name, value in site.environment.items() if name.startswith("ECGWATCH_")})


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"), excerpt(seconds=20))


def alert(number: int) -> messages.Alert:
    return messages.Alert(1, f"p/MLII/{number}", "p", "MLII", number, 4.0, 3.0, 0.1, 9.0, "map distance", "ab")


def send_alerts(site: Site, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": site.brokers})
    for value in values:
        producer.produce(site.alerts, key=b"p", value=value)
    assert producer.flush(30) == 0


def test_a_replay_publishes_every_annotated_beat_under_the_patient(site: Site, settings: Settings, record: Path):
    count = clients.replay(settings, record, speed=math.inf, patient="bed-2", start_ms=START_MS)
    found = site.read(site.beats)
    beats = [
        beat
        for message in found
        for beat in messages.decode_beats(
            message.value(), message.key(), dict(message.headers())["content-type"].decode()
        )
    ]
    annotated = excerpt(seconds=20).r_samples / 360
    assert count == len(beats) == len(annotated)
    assert [beat.r_time_ms - START_MS for beat in beats] == pytest.approx((annotated * 1000).tolist(), abs=0.51)
    assert {beat.patient for beat in beats} == {"bed-2"}


@pytest.mark.parametrize(("form", "content_type"), [("binary", b"application/msgpack"), ("json", b"application/json")])
def test_a_replay_names_its_form_in_the_header(
    site: Site, settings: Settings, record: Path, form: str, content_type: bytes
):
    clients.replay(settings, record, speed=math.inf, form=form)  # type: ignore[arg-type]
    assert {dict(message.headers())["content-type"] for message in site.read(site.beats)} == {content_type}


@pytest.mark.parametrize("form", ["binary", "json"])
def test_beats_beside_a_gap_of_the_signal_are_left_out_and_counted(
    site: Site, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, form: Literal["binary", "json"]
):
    whole = excerpt(seconds=20)
    signal = whole.signal.copy()
    signal[3000:3400] = np.nan  # WFDB's "no sample"
    path = write_record(tmp_path, replace(whole, signal=signal))
    beside = (whole.r_samples > 3000 - 1.75 * 360) & (whole.r_samples < 3400 + 0.5 * 360)
    count = clients.replay(settings, path, speed=math.inf, form=form, start_ms=START_MS)
    found = [b for m in site.read(site.beats) for b in messages.decode_beats(m.value(), m.key(), clients.FORMS[form])]
    assert count == len(found) == (~beside).sum()
    assert all(isinstance(one, Beat) for one in found)
    assert caplog.messages == [f"record {path}: {beside.sum()} of {len(beside)} beats are left out: not-finite"]


def test_a_beat_is_published_when_its_window_is_complete(site: Site, settings: Settings, record: Path):
    speed = 10.0
    before_s = time.time()
    clients.replay(settings, record, speed=speed, start_ms=0)
    for message in site.read(site.beats):
        (beat,) = messages.decode_beats(message.value(), message.key(), messages.MSGPACK)
        due_s = before_s + (beat.r_time_ms / 1000 + AFTER_S) / speed
        assert due_s - 0.01 <= message.timestamp()[1] / 1000 <= due_s + 2.0


def test_replayed_beats_of_a_patient_are_scored_and_their_alerts_followed(site: Site, settings: Settings, record: Path):
    site.worker(alerts_false_alerts_per_hour="60").ready()
    clients.replay(settings, record, speed=math.inf, patient="bed-2", start_ms=START_MS)
    site.all_committed()
    alerted = {
        messages.decode_score(m.value()).id for m in site.read(site.scores) if messages.decode_score(m.value()).alert
    }
    followed = clients.alerts(settings, from_beginning=True)
    assert {next(followed).id for _ in alerted} == alerted
    followed.close()  # type: ignore[attr-defined]


def test_repeated_alerts_are_followed_once(site: Site, settings: Settings):
    values = [messages.encode(alert(number)) for number in (1, 2, 1, 1, 2, 3)]
    send_alerts(site, *values)
    followed = clients.alerts(settings, from_beginning=True)
    assert [next(followed).r_time_ms for _ in range(3)] == [1, 2, 3]
    followed.close()  # type: ignore[attr-defined]


def test_a_record_that_is_no_alert_is_skipped_with_a_warning(
    site: Site, settings: Settings, caplog: pytest.LogCaptureFixture
):
    send_alerts(site, b"hello", messages.encode(alert(1)))
    followed = clients.alerts(settings, from_beginning=True)
    assert next(followed) == alert(1)
    followed.close()  # type: ignore[attr-defined]
    assert [record.getMessage() for record in caplog.records if "no alert" in record.getMessage()]


@pytest.fixture
def follower(site: Site, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """`ecgwatch alerts --format jsonl --from-beginning` as a process, and the file that it writes to."""
    file = tmp_path / "alerts.jsonl"
    command = [sys.executable, "-m", "ecgwatch", "alerts", "--format", "jsonl", "--from-beginning"]
    with file.open("wb") as out:
        process = subprocess.Popen(command, env=site.environment, stdout=out, stderr=subprocess.PIPE)
    yield process, file
    process.kill()
    process.communicate()


def test_ctrl_c_ends_the_follower_cleanly(site: Site, follower: tuple["subprocess.Popen[bytes]", Path]):
    process, file = follower
    send_alerts(site, messages.encode(alert(1)))
    until(lambda: file.read_bytes().endswith(b"\n"), 30, "an alert is printed as it comes")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")
    assert msgspec.json.decode(file.read_bytes(), type=messages.Alert) == alert(1)


def test_a_follower_says_that_no_broker_answers_and_misses_nothing_of_an_outage(
    kafka_jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(clients, "_LOOK_S", 0.5)
    broker = Kafka(tmp_path / "kafka").start()
    try:
        with Site(broker.brokers, tmp_path) as site:
            settings = Settings(kafka=config.Kafka(brokers=broker.brokers), topics=config.Topics(alerts=site.alerts))
            followed = following(settings, last=alert(3))
            send_alerts(site, messages.encode(alert(1)))
            assert followed.get(timeout=20) == alert(1)
            broker.stop()
            until(lambda: "their alerts are NOT seen" in caplog.text, 20, "the outage is said")
            broker.start()
            send_alerts(site, messages.encode(alert(2)))
            assert followed.get(timeout=20) == alert(2)
            until(lambda: "broker answers again" in caplog.text, 20, "its end is said")
            assert caplog.text.count("NOT seen") == 1
            send_alerts(site, messages.encode(alert(3)))
            assert followed.get(timeout=20) == alert(3)
    finally:
        broker.kill()


def test_a_follower_reads_partitions_that_are_added_to_the_topic(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clients, "_LOOK_S", 0.5)
    followed = following(settings, last=alert(2))
    send_alerts(site, messages.encode(alert(1)))
    assert followed.get(timeout=20) == alert(1)
    admin = AdminClient({"bootstrap.servers": site.brokers})
    (more,) = admin.create_partitions([NewPartitions(site.alerts, 8)]).values()
    more.result()
    producer = Producer({"bootstrap.servers": site.brokers})
    producer.produce(site.alerts, messages.encode(alert(2)), b"p", partition=7)  # before the follower knows of it
    assert producer.flush(30) == 0
    assert followed.get(timeout=20) == alert(2)


def following(settings: Settings, last: messages.Alert) -> "queue.Queue[messages.Alert]":
    """Follow the alert topic in a thread, up to an alert; return what it puts alerts in."""
    found: queue.Queue[messages.Alert] = queue.Queue()

    def run() -> None:
        for one in clients.alerts(settings, from_beginning=True):
            found.put(one)
            if one == last:
                return

    threading.Thread(target=run, daemon=True).start()
    return found


@pytest.mark.parametrize("use", ["replay", "follow"])
def test_a_missing_topic_is_named(kafka: Cluster, record: Path, use: str):
    settings = Settings(
        kafka=config.Kafka(brokers=kafka.brokers), topics=config.Topics(beats="not-there", alerts="not-there")
    )
    with pytest.raises(BrokerError, match="no topic not-there"):
        clients.replay(settings, record) if use == "replay" else clients.follow(settings)


def test_without_a_broker_a_replay_gives_up_in_one_line(record: Path):
    settings = Settings(kafka=config.Kafka(brokers=f"127.0.0.1:{free_ports(1)[0]}", start_timeout_s=1.0))
    with pytest.raises(BrokerError, match=r"no broker at 127\.0\.0\.1"):
        clients.replay(settings, record)
