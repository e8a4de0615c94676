"""How a worker starts and ends: exit codes, times and last words."""

import signal
import socket
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from tests.integration.kafka_server import Kafka, free_ports
from tests.integration.odd_worker import BEGUN
from tests.integration.traffic import Site, until

pytestmark = pytest.mark.kafka
ODD = str(Path(__file__).with_name("odd_worker.py"))


def test_sigterm_under_load_ends_it_with_0_within_5_s_and_what_was_scored_is_committed(site: Site):
    sender = site.sender()
    worker = site.worker().ready()
    with sender.at_rate(200):
        until(lambda: site.scored(), 10, "beats are scored")
        code, took_s = worker.stop()
    assert (code, took_s < 5) == (0, True)
    assert len(sender.ids) - site.lag() == len(site.scored())


def test_ctrl_c_ends_it_with_0(site: Site):
    worker = site.worker().ready()
    worker.send(signal.SIGINT)
    assert worker.exit_code() == 0
    assert worker.log.splitlines()[-1].endswith("INFO stopped")


def test_sigterm_while_the_broker_is_down_ends_it_with_an_error_within_5_s(
    start_kafka: Callable[..., Kafka], tmp_path: Path
):
    broker = start_kafka()
    with Site(broker.brokers, tmp_path) as site:
        worker = site.worker().ready()
        sender = site.sender()
        sender.send(5000)
        until(lambda: site.scored(), 10, "beats are scored")
        broker.kill()
        worker.says("does not answer")
        code, took_s = worker.stop()
    assert (code, took_s < 5) == (69, True)
    assert "ERROR not stopped within 5 s (no broker answers)" in worker.log


def test_a_second_signal_ends_it_at_once(site: Site):
    worker = site.worker(ODD, "hangs").ready()
    site.sender().send(1)
    until(lambda: site.lag() == 1, 10, "a beat waits")
    worker.says(BEGUN)
    worker.send(signal.SIGTERM)
    worker.says("stopping")
    worker.send(signal.SIGTERM)
    assert worker.exit_code(within_s=1) == 128 + signal.SIGTERM


def test_a_batch_that_fails_ends_it_with_70_and_is_not_committed(site: Site):
    worker = site.worker(ODD, "fails").ready()
    site.sender().send(1)
    assert worker.exit_code(within_s=10) == 70
    assert worker.log.splitlines()[-1] == (
        "ecgwatch: a batch failed: RuntimeError at odd_worker.py:27; nothing of it was committed"
    )
    assert site.lag() == 1


def test_a_batch_that_fails_after_sigterm_ends_it_with_70_and_an_error_line(site: Site):
    worker = site.worker(ODD, "fails-late").ready()
    site.sender().send(1)
    worker.says(BEGUN)
    assert worker.stop()[0] == 70
    assert "stopping: finishing what is in flight" in worker.log
    assert "ERROR failed: a batch failed: RuntimeError at odd_worker.py:" in worker.log
    assert "INFO stopped" not in worker.log
    assert "Jane Roe" not in worker.log
    assert site.lag() == 1


def test_a_hanging_batch_ends_it_with_75_within_5_s_of_sigterm(site: Site):
    worker = site.worker(ODD, "hangs").ready()
    site.sender().send(1)
    worker.says(BEGUN)
    code, took_s = worker.stop()
    assert (code, took_s < 5) == (75, True)


def test_it_waits_for_the_broker_says_so_and_gives_up_with_69(tmp_path: Path, site: Site):
    port = free_ports(1)[0]
    worker = site.worker(kafka_brokers=f"127.0.0.1:{port}", kafka_start_timeout_s="2")
    assert worker.exit_code() == 69
    lines = worker.log.splitlines()
    assert f"WARNING waiting for broker 127.0.0.1:{port}: " in lines[0]
    assert lines[-1].startswith(f"ecgwatch: no broker at 127.0.0.1:{port} within 2 s (")
    assert len(lines) == 2


def test_sigterm_while_it_waits_for_the_broker_ends_it_with_0(site: Site):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = site.worker(kafka_brokers=f"127.0.0.1:{silent.getsockname()[1]}")
        worker.says("waiting for broker")
        code, took_s = worker.stop()
    assert (code, took_s < 5) == (0, True)


def test_a_missing_topic_is_one_line_and_69(site: Site):
    worker = site.worker(topics_alerts="nowhere")
    assert worker.exit_code() == 69
    assert worker.log.startswith("ecgwatch: no topic nowhere on ")
    assert worker.log.count("\n") == 1


def test_missing_topics_are_created_where_the_settings_say_so(site: Site):
    alerts, baselines = f"{site.alerts}-new", f"{site.baselines}-new"
    create = {"topics_create": "true", "topics_replication": "1", "topics_partitions": "6"}
    worker = site.worker(topics_alerts=alerts, topics_baselines=baselines, **create).ready()
    for name in (alerts, baselines):
        assert f"created topic {name}: 6 partitions, 1 copies" in worker.log
    assert worker.stop()[0] == 0
    resource = ConfigResource(ResourceType.TOPIC, baselines)
    admin = AdminClient({"bootstrap.servers": site.brokers})
    made = admin.describe_configs([resource])[resource].result(timeout=20)
    assert (made["cleanup.policy"].value, made["segment.bytes"].value) == ("compact", "16777216")
    fewer = f"{site.baselines}-as-many"
    assert site.worker(topics_baselines=fewer, **create | {"topics_partitions": "2"}).ready().stop()[0] == 0
    assert len(admin.list_topics(fewer, timeout=20).topics[fewer].partitions) == 6  # as many as the beats'


@pytest.mark.skipif(find_library("cuda") is not None, reason="there is a CUDA driver here")
def test_cuda_demanded_and_absent_is_one_line_and_78(site: Site):
    worker = site.worker(model_provider="cuda")
    assert worker.exit_code() == 78
    assert worker.log == "ecgwatch: [model] provider = cuda: onnxruntime found no usable CUDA GPU; use auto or cpu\n"
