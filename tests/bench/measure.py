"""One measured figure, and how CPU time is taken."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REPEATS = 7
LOOP_S = 0.3


@dataclass(frozen=True)
class Figure:
    """value in `unit`; limit: what the target allows at most (`at_least`: what it wants at least), None for none."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.limit is not None:
            return self.value <= self.limit
        return self.value >= self.at_least if self.at_least is not None else None

    @property
    def target(self) -> str:
        if self.limit is not None:
            return f"<= {self.limit:g}"
        return f">= {self.at_least:g}" if self.at_least is not None else ""


def cpu_us(work: Callable[[], Any], items: int) -> float:
    """Return the CPU time of one item, microseconds: the best of some loops, as other load can only add to it."""
    work()
    begin = time.process_time()
    work()
    loops = max(1, round(LOOP_S / max(1e-6, time.process_time() - begin)))
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.process_time()
        for _ in range(loops):
            work()
        best = min(best, time.process_time() - begin)
    return best / loops / items * 1e6


def paired_cpu_us(first: Callable[[], Any], second: Callable[[], Any], items: int) -> tuple[float, float]:
    """Return the CPU time of an item in `first`, and what `second` takes beyond it, microseconds.

    The two are called in turns, so that other load and the processor's clock meet both alike; medians.
    """
    firsts, beyond = [], []
    end = time.perf_counter() + REPEATS * LOOP_S * 2
    while time.perf_counter() < end or len(firsts) < REPEATS:
        begin = time.process_time()
        first()
        between = time.process_time()
        second()
        firsts.append(between - begin)
        beyond.append(time.process_time() - between - (between - begin))
    return statistics.median(firsts) / items * 1e6, statistics.median(beyond) / items * 1e6
