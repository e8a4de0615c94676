"""The demo as a user runs it: a process in a terminal or a pipe, with the real worker as its child."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from rich.console import Console

from ecgwatch import config, demo
from ecgwatch.errors import ConfigError

COMMAND = [sys.executable, "-m", "ecgwatch", "demo", "--speed", "20"]


@contextmanager
def running() -> Iterator[subprocess.Popen[str]]:
    """Start the demo and yield it when its worker has scored beats; whatever is left of it ends with the block."""
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    family = [process]
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"[1-9]\d* of", line):
                break
        family += workers(process)
        yield process
    finally:
        for member in family:
            if psutil.pid_exists(member.pid):
                member.kill()
        process.communicate()


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def finished():
    return subprocess.run(COMMAND, capture_output=True, text=True, timeout=120, check=False)


def test_it_ends_by_itself_with_every_beat_answered(finished):
    assert (finished.returncode, finished.stderr) == (0, "")
    sent, scored = re.search(r"(\d+) beats sent, (\d+) scored, 0 refused, 0 unanswered", finished.stdout).groups()
    assert int(sent) == int(scored) > 500


def test_it_says_what_it_plays_with_which_model_and_that_it_is_no_medical_device(finished):
    head = finished.stdout[:600]
    for part in ("MIT-BIH", "sha256", "no medical device", "false alerts per hour"):
        assert part in head


def test_it_shows_alerts_with_their_reason_and_judges_each(finished):
    alerts = re.findall(
        r"^bed-\d  score ([\d.]+) > ([\d.]+)  (right|false alert): .*; .+$", finished.stdout, re.MULTILINE
    )
    assert alerts
    assert all(float(score) > float(threshold) for score, threshold, _ in alerts)
    right, false = re.search(r"of which (\d+) right and (\d+) false", finished.stdout).groups()
    assert [verdict for *_, verdict in alerts].count("right") == int(right)
    assert [verdict for *_, verdict in alerts].count("false alert") == int(false)


def test_the_alerts_on_abnormal_beats_are_the_abnormal_beats_found(finished):
    right = re.search(r"of which (\d+) right", finished.stdout).group(1)
    found, abnormal, missed = re.search(r"(\d+) of (\d+) found.*, (\d+) missed", finished.stdout).groups()
    assert right == found
    assert int(found) + int(missed) == int(abnormal) > 50


def test_ctrl_c_ends_it_cleanly_with_a_summary_and_no_worker_left():
    with running() as process:
        left = workers(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert left
        assert [worker for worker in left if worker.is_running()] == []
    assert (process.returncode, err) == (0, "")
    assert "Stopped by Ctrl-C." in out
    assert "beats sent" in out


def test_the_worker_ends_when_the_demo_is_killed():
    with running() as process:
        left = workers(process)
        process.kill()
        assert left
        assert psutil.wait_procs(left, timeout=20)[1] == []


def test_a_worker_that_dies_ends_the_demo_with_one_line():
    with running() as process:
        workers(process)[0].kill()
        _, err = process.communicate(timeout=20)
    assert process.returncode == os.EX_SOFTWARE
    assert err.startswith("ecgwatch: the worker ended with exit code -9")
    assert err.count("\n") == 1


def test_in_a_terminal_it_draws_a_live_picture(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    svg = tmp_path / "demo.svg"
    assert demo.run(config.Settings(), records=["100"], speed=60, console=console, svg=svg) == 0
    drawn = console.file.getvalue()
    assert "ecgwatch demo" in drawn and "100 first" in drawn and "the worker's log" in drawn
    assert "ExecutionProvider" in drawn  # the worker says what it scores on
    assert svg.read_text().startswith("<svg")


def test_an_unknown_record_is_an_error_before_anything_starts():
    with pytest.raises(ConfigError, match="no excerpt of record 1"):
        demo.run(config.Settings(), records=["1"])


def test_a_rate_that_the_model_was_not_calibrated_for_is_an_error_before_anything_starts():
    with pytest.raises(ConfigError, match="calibrated for"):
        demo.run(config.Settings(), rate=0.123)


def test_the_worker_gets_the_demos_settings_and_none_of_the_users_kafka(monkeypatch):
    monkeypatch.setenv("ECGWATCH_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("ECGWATCH_KAFKA_SASL_PASSWORD", "secret")
    mine = config.Settings(model=config.Model(threads=2), logs=config.Logs(identities=True))
    given = demo.environment(demo.on_broker(mine, "127.0.0.1:1", rate=30))
    assert "ECGWATCH_KAFKA_SASL_PASSWORD" not in given
    assert config.load(environ=given) == demo.on_broker(mine, "127.0.0.1:1", rate=30)
