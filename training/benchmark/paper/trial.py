"""What a GPU likes, found out by a short trial: how many models train at once, and how many points to encode at a time.

One model of the paper leaves most of a GPU idle; how many fill it depends on the GPU. So 1, 2, 4, ... processes each
train one on made-up data, with training's own captured step and epoch, for as long as a doubling gains a tenth. The
training batch is the paper's and is not tried: another one would be another experiment.
"""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import TimeoutError as TookTooLong
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ecgwatch.beats import Contract, ImageContract
from training import train
from training.datasets import cifar, norb
from training.models import ENCODED, BetaVAE, encoded
from training.parameters import Parameters
from training.text import write_atomically

GAIN = 1.1  # what a larger number must be worth: it takes memory
LIMIT_S = 120  # of one number of processes, from their start
# of one process: CUDA's context, the captured step, the largest data set (.6 GB), a batch that is encoded
PROCESS_BYTES = 3 * 2**30


@dataclass(frozen=True)
class Plan:
    """How a device is used: models that train at once, points encoded at a time; measured: what that is drawn from."""

    training: int
    batch: int = ENCODED
    measured: str = ""


@dataclass(frozen=True)
class Size:
    """How much is tried.

    steps: of training, after as many that are not measured; about an epoch of the paper's data sets. batches: points at
    a time; more would save milliseconds of a cell and take gigabytes (LSTM).
    """

    steps: int = 500
    batches: tuple[int, ...] = (ENCODED, 2 * ENCODED, 4 * ENCODED)


FULL = Size()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most(on: torch.device) -> int:
    """Return how many processes have room: a core each and, on a GPU, its memory."""
    room = torch.cuda.mem_get_info(on)[0] // PROCESS_BYTES if on.type == "cuda" else cores()
    return max(1, min(cores(), room))


def has_mps(on: torch.device) -> bool:
    """Return whether NVIDIA's Multi-Process Service runs: kernels of several processes then run side by side."""
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    return on.type == "cuda" and (pipes / "control").exists()


def plan(
    parameters: Parameters, on: torch.device, file: Path, most: int, end: float | None = None, size: Size = FULL
) -> Plan:
    """Return what was found for this device before, from a JSON file, or try it now, say it and write it there.

    parameters: of the model to try; most: processes; end: on the monotonic clock. What failed from the first, or was
    cut short by the end, is not written.
    """
    device = train.machine(on) + (" with MPS" if has_mps(on) else "")
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if device in known:
        return Plan(**known[device])
    batches: dict[int, int] = {}

    def rate(at_once: int) -> float:
        limit_s = LIMIT_S if end is None else min(LIMIT_S, end - time.monotonic())
        seconds, batches[at_once] = measure(parameters, on, at_once, limit_s, size)
        return at_once * size.steps / seconds

    climbed = climb([2**power for power in range(most.bit_length())], rate)
    found = Plan(climbed.chosen, batches.get(climbed.chosen, ENCODED), said(climbed))
    print(
        f"device: {device}: {found.measured} -> {found.training} at once; encoding in batches of {found.batch:,}",
        flush=True,
    )
    if on.type == "cuda" and not has_mps(on):
        print("without NVIDIA's MPS models take turns on the GPU; to start it: nvidia-cuda-mps-control -d", flush=True)
    if climbed.rates and (end is None or time.monotonic() < end):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({**known, device: asdict(found)}, indent=1))
    return found


class Climbed(NamedTuple):
    """The candidate chosen, the rates measured, and which one failed and why, or nothing."""

    chosen: int
    rates: dict[int, float]
    failure: str


def climb(candidates: Sequence[int], rate: Callable[[int], float]) -> Climbed:
    """Measure growing candidates until one fails or gains less than a tenth; the last before it is chosen."""
    best, rates = candidates[0], dict[int, float]()
    for one in candidates:
        try:
            rates[one] = rate(one)
        except (RuntimeError, TookTooLong) as error:  # torch says in several ways that memory does not suffice
            reason = re.split(r"\.\s|\n", str(error))[0] or type(error).__name__
            return Climbed(best, rates, f"{one} failed: {reason}")
        if rates[one] < GAIN * rates.get(best, 0.0) and one != best:
            break
        best = one
    return Climbed(best, rates, "")


def said(climbed: Climbed) -> str:
    """Return what was measured in one line: "steps/s of 1, 2, 4 models at once: 120, 220, 230"."""
    numbers, rates = ", ".join(map(str, climbed.rates)), ", ".join(f"{rate:,.0f}" for rate in climbed.rates.values())
    measured = f"steps/s of {numbers} models at once: {rates}" if rates else ""
    return "; ".join(part for part in (measured, climbed.failure) if part)


def measure(parameters: Parameters, on: torch.device, at_once: int, limit_s: float, size: Size) -> tuple[float, int]:
    """Return in how many seconds all of some processes train, and the batch that each of them can well encode.

    Raises RuntimeError where one fails, TimeoutError of multiprocessing after the limit.
    """
    context, end = get_context("spawn"), time.monotonic() + limit_s
    with context.Pool(at_once, _begin, (context.Barrier(at_once),)) as pool:  # leaving it ends those that wait
        results = pool.imap_unordered(partial(_in_process, parameters, on), [size] * at_once)
        found = [results.next(max(0.0, end - time.monotonic())) for _ in range(at_once)]
    return max(seconds for seconds, _ in found), min(batch for _, batch in found)


_together: Barrier  # of the processes of one trial: each holds one task until all have theirs


def _begin(together: Barrier) -> None:
    global _together
    torch.set_num_threads(1)
    _together = together


def _in_process(parameters: Parameters, on: torch.device, size: Size) -> tuple[float, int]:
    """Train for some steps, in the seconds that are returned, then choose the batch to encode in."""
    given, seen = lengths(parameters.dataset)
    data = torch.rand(size.steps * parameters.batch, given, device=on)
    model, optimizer = train.begin(parameters, seen, on)
    first = train.random_crops(data[: parameters.batch], seen)
    step = train.make_step(model, optimizer, parameters, first, capture=on.type == "cuda")

    def epoch(number: int) -> dict[str, float]:  # ends with its losses on the CPU: then the GPU is done
        return train.run_epoch(model, step, data, seen, parameters, number, size.steps, lambda shown: None)

    epoch(0)
    _together.wait(LIMIT_S)
    seconds = _seconds(partial(epoch, 1))
    x = np.random.default_rng(0).random((4 * max(size.batches), seen), np.float32)
    return seconds, climb(size.batches, partial(_encoding_rate, model, x)).chosen


def lengths(dataset: str) -> tuple[int, int]:
    """Return how many numbers training is given of a point, and how many the model sees: of Small-NORB crops."""
    seen = {"arrhythmia": Contract().length, "cifar-10": cifar.CONTRACT.length, "small-norb": norb.CONTRACT.length}
    length = seen.get(dataset, ImageContract().length)
    return (norb.SIDE // 2) ** 2 if dataset == "small-norb" else length, length


def _encoding_rate(model: BetaVAE, x: np.ndarray, batch: int) -> float:
    encoded(model, x[:batch], batch)  # what the first time allocates and chooses
    return len(x) / _seconds(partial(encoded, model, x, batch))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
