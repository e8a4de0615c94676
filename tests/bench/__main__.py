"""`python -m tests.bench`: print a table, write the same as JSON.

Takes about seven minutes. Needs Java 17 and Maven, or a Kafka at ECGWATCH_TEST_KAFKA.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench import service, stages, training
from tests.bench.measure import Figure
from tests.integration.kafka_server import Kafka, Unavailable

LIBRARIES = (
    "faust-streaming",
    "aiokafka",
    "confluent-kafka",
    "onnxruntime-gpu",
    "onnxruntime",  # the one or the other is installed
    "msgspec",
    "numpy",
    "torch",
)
BEGIN, END = "<!-- figures: make bench -->", "<!-- end -->"


def main() -> int:
    """Measure everything and report it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="default: %(default)s")
    parser.add_argument("--page", type=Path, help="also replace the figures in this page (docs/benchmark.md)")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as address:
            sections = measure(service.Bench(address, Path(folder)), progress)
    except Unavailable as missing:
        print(missing, file=sys.stderr)
        return 1
    about = surroundings()
    Console().print(table(sections, about))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({**about, "figures": as_json(sections)}, indent=2) + "\n")
    if arguments.page:
        text = arguments.page.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        arguments.page.write_text(f"{before}{BEGIN}\n{markdown(sections, about)}\n{END}{after}")
    return 0


def measure(bench: service.Bench, progress: Console) -> dict[str, list[Figure]]:
    """Return the figures by section."""
    progress.print("model and stages")
    sections, costs = {}, None
    sections["Model, one core"], costs = stages.measure()
    progress.print("training step")
    sections["Training"] = training.measure()
    progress.print("worker: backlogs")
    sections["Worker"], quiet, full = bench.overhead(costs)
    progress.print("worker: latency, start, crash")
    sections["Latency"] = [
        *bench.alert_latency(quiet.beats_per_s / 2),
        *bench.score_latency(full.beats_per_s / 2),
        bench.idle(),
        bench.first_score(),
        *bench.crash(),
    ]
    progress.print("scaling")
    sections["Scaling"] = bench.scaling()
    return sections


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The address of a real Kafka: the one given, else one that lives as long as the block."""
    if address := os.environ.get("ECGWATCH_TEST_KAFKA"):
        yield address
        return
    kafka = Kafka(folder / "kafka", java_options=()).start()
    try:
        yield kafka.brokers
    finally:
        kafka.kill()


def surroundings() -> dict[str, object]:
    """Where and with what this was measured."""
    load = psutil.getloadavg()[2]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(),
        "load average before the end, 15 min": round(load, 1),
        "python": platform.python_version(),
        "versions": versions(LIBRARIES),
    }


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def cpu_name() -> str:
    """The processor as Linux names it, else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(sections: dict[str, list[Figure]]) -> list[dict[str, object]]:
    return [
        {"section": section, **asdict(figure), "holds": figure.holds}
        for section, figures in sections.items()
        for figure in figures
    ]


def verdict(figure: Figure) -> str:
    return {None: "", True: "yes", False: "NO"}[figure.holds]


def heading(about: dict[str, object]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())  # type: ignore[attr-defined]
    load = about["load average before the end, 15 min"]
    return f"{about['date']}, {about['cpu']}, {about['cores']} cores, load {load}, Python {about['python']}, {versions}"


def table(sections: dict[str, list[Figure]], about: dict[str, object]) -> Table:
    """The figures for a terminal."""
    drawn = Table("", "value", "unit", "target", "holds", "note", title=heading(about))
    for section, figures in sections.items():
        drawn.add_section()
        drawn.add_row(f"[bold]{section}")
        for one in figures:
            drawn.add_row(one.name, f"{one.value:,.1f}", one.unit, one.target, verdict(one), one.note)
    return drawn


def markdown(sections: dict[str, list[Figure]], about: dict[str, object]) -> str:
    """The figures for a page."""
    lines = [
        f"Measured {heading(about)}.",
        "",
        "| | value | unit | target | holds | note |",
        "|---|--:|---|---|---|---|",
    ]
    for section, figures in sections.items():
        lines.append(f"| **{section}** | | | | | |")
        for one in figures:
            lines.append(f"| {one.name} | {one.value:,.1f} | {one.unit} | {one.target} | {verdict(one)} | {one.note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
