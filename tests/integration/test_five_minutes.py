"""The README's path from an installation to the first alert works on a real Kafka, command by command."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ecgwatch.messages import decode_alert
from tests.integration.conftest import Cluster

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
PATH = README.split("## Five minutes")[1].split("\n## ")[0]
DATA = os.environ.get("ECGWATCH_DATA_DIRECTORY")


def command(name: str) -> list[str]:
    """Return the section's `ecgwatch NAME ...` line as arguments."""
    return re.search(rf"^ +ecgwatch ({name}\b.*)$", PATH, re.MULTILINE).group(1).split()


@pytest.fixture
def environment(kafka: Cluster) -> dict[str, str]:
    """The section's exports, with the test's broker and topics of its own."""
    if DATA is None:
        pytest.skip("set ECGWATCH_DATA_DIRECTORY to the folder that holds mitdb/")
    exports = dict(re.findall(r"(ECGWATCH_\w+)=(\S+)", PATH))
    mine = uuid.uuid4().hex[:8]
    topics = {f"ECGWATCH_TOPICS_{name.upper()}": f"{name}-{mine}" for name in ("beats", "alerts", "dead_letters")}
    return os.environ | exports | topics | {"ECGWATCH_KAFKA_BROKERS": kafka.brokers, "ECGWATCH_KAFKA_GROUP": mine}


@contextmanager
def running(argv: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ecgwatch", *argv],
        env=environment,
        cwd=DATA,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"it ended without saying {text!r}: {''.join(lines)}")


@pytest.mark.kafka
@pytest.mark.data
def test_from_the_worker_over_a_replayed_record_to_the_first_alert(environment):
    alerts = [*command("alerts"), "--format", "jsonl"]
    replay = [*command("replay"), "--speed", "200"]  # the last one counts: nine seconds instead of three minutes
    with running(command("worker"), environment) as worker:
        wait_for("partitions: ", worker)  # it has its topics now
        with running(alerts, environment) as following:
            with running(replay, environment) as replaying:
                out, _ = replaying.communicate(timeout=120)
            assert "beats published" in out
            assert following.stdout is not None
            assert decode_alert(following.stdout.readline().encode()).patient == "bed-5"
