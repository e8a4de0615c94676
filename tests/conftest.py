"""In CI a skipped test is a failure, but for the markers in allowed_skips.txt."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs under test: `make test &` in a script starts with SIGINT ignored, they too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def allowed_skips() -> set[str]:
    """Return the markers whose tests may skip in CI."""
    lines = (line.split("#")[0].strip() for line in ALLOWED_SKIPS.read_text().splitlines())
    return {line for line in lines if line}


@pytest.fixture(scope="session")
def mitdb() -> Path:
    """Return the folder of the MIT-BIH records; tests that take it are marked `data`."""
    folder = Path(os.environ.get("ECGWATCH_DATA_DIRECTORY", "data")) / "mitdb"
    if not folder.is_dir():
        pytest.skip(f"no MIT-BIH records in {folder}: set ECGWATCH_DATA_DIRECTORY to the folder that holds mitdb/")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    excused = allowed_skips().intersection(marker.name for marker in item.iter_markers())
    if report.skipped and not hasattr(report, "wasxfail") and in_ci() and not excused:
        fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and in_ci():
        fail(report)
    return report


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


def fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says why it was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}; in CI a skip is a failure (allowed: {ALLOWED_SKIPS.name})"
