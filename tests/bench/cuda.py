"""What only a machine with a CUDA GPU can show, in one call: `python -m tests.bench.cuda`.

Checks that the default bundle scores on the GPU as on the CPU, tells which of its nodes run where, times both in turn,
trains with and without a captured step and stopped half way, encodes on both, times steps in both precisions, tries how
many of the paper's models train at once, and prints tables. Exits with 1 where a check fails.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file

from ecgwatch import bundle as bundles
from ecgwatch import config
from ecgwatch.beats import Contract, of_heartbeats
from ecgwatch.bundle import Bundle
from ecgwatch.errors import EcgwatchError
from ecgwatch.scorer import TOLERANCE, Scorer
from training import train
from training.benchmark.paper import trial
from training.datasets.arrhythmia import DS2, load
from training.models import encoded, segment_model
from training.parameters import Parameters, defaults

BEATS = 10_000
RECORDS = DS2[:6]
BATCHES = (1, 64, 1024)
ROUNDS = 15
SEEDS = (0, 1, 2)
PARTS = ("scores", "training", "encoding", "steps", "at-once")
ENCODED = (1000, 4000, 16_000)
ENCODED_TOLERANCE = 1e-4  # of latents and NSE, in units of their standard deviation: TF32 would be far above it
LOSS_TOLERANCE = 0.01  # relative, after two epochs: kernels add in another order each time
REPEATS = 3
REPEATED_TOLERANCE = 0.05  # of medians, where a model drops out: one seed five times on an H100 gave 2.68 to 2.84


def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks; returns the exit code. Without a GPU or the records: one line, and an exit code of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts; default: all")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.exit(os.EX_UNAVAILABLE, "torch finds no CUDA GPU here\n")
    try:
        return _run(args.only)
    except EcgwatchError as error:
        parser.exit(error.exit_code, f"{error}\n")


def _run(only: Sequence[str]) -> int:
    bundle = bundles.load("default")
    folder = Path(config.load().data.directory) / "mitdb"
    x = load(folder, of_heartbeats(bundle.manifest.contract), ["N"], RECORDS).x[:BEATS]
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    checks: dict[str, bool] = {}
    if "scores" in only:
        checks["same scores"] = scores(bundle, x)
        print(nodes(bundle, x[:64]))
        print(speed(bundle, x))
    if "training" in only:
        segments = load(folder, Contract(), ["N"], RECORDS).x[:BEATS]
        checks["captured training"] = training(x)
        checks["training that was stopped"] = stopped(segments)
        print(dropout(segments))
    if "encoding" in only:
        checks["same latents"] = encoding()
    if "steps" in only:
        print(steps())
    if "at-once" in only:
        print(at_once())
    for name, holds in checks.items():
        print(f"{name}: {'holds' if holds else 'FAILS'}")
    return 0 if all(checks.values()) else 1


def scores(bundle: Bundle, x: np.ndarray) -> bool:
    """Compare the scores of GPU and CPU."""
    here, there = (Scorer(bundle, provider, 0).score(x) for provider in ("cuda", "cpu"))
    found = {name: float(np.abs(getattr(here, name) - getattr(there, name)).max()) for name in here._fields}
    unit = np.maximum(1, np.abs(there.score))
    worst = float((np.abs(here.score - there.score) / unit).max())
    print(f"{len(x)} beats, largest difference between GPU and CPU: {found}; of the score, relative: {worst:.2g}")
    return worst <= TOLERANCE


def nodes(bundle: Bundle, x: np.ndarray) -> str:
    """Return a table of the graph's nodes by where they run; a Memcpy node is a way between GPU and CPU."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            bundle.model, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
        session.run(None, {"x": x})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = {event["name"]: event["args"] for event in events if event["name"].endswith("_kernel_time")}
    where = Counter(args["provider"] for args in ran.values())
    ways = [name.removesuffix("_kernel_time") for name, args in ran.items() if args["op_name"].startswith("Memcpy")]
    on_cpu = Counter(args["op_name"] for args in ran.values() if args["provider"].startswith("CPU"))
    return f"nodes: {dict(where)}; on the CPU: {dict(on_cpu)}; ways between them: {ways or 'none'}"


def speed(bundle: Bundle, x: np.ndarray) -> str:
    """Return a table of microseconds a beat, GPU and CPU in turn, medians."""
    gpu, cpu = Scorer(bundle, "cuda"), Scorer(bundle, "cpu")
    lines = ["| batch | GPU, us a beat | CPU (one thread) | ratio |", "|---:|---:|---:|---:|"]
    for batch in BATCHES:
        part = x[:batch]
        rounds = [(_seconds(gpu, part), _seconds(cpu, part)) for _ in range(ROUNDS)]
        here, there = (float(np.median(side)) * 1e6 / batch for side in zip(*rounds, strict=True))
        lines.append(f"| {batch:,} | {here:.1f} | {there:.1f} | {there / here:.1f} |")
    return "\n".join(lines)


def _seconds(scorer: Scorer, x: np.ndarray) -> float:
    start = time.perf_counter()
    scorer.score(x)
    return time.perf_counter() - start


def training(x: np.ndarray) -> bool:
    """Train two epochs on the GPU, step by step and captured: the same losses, and how much quicker."""
    parameters = replace(Parameters(contract="bedside", latent=4, capacity=4.0), epochs=2, cooldown=0)
    losses, seconds = {}, {}
    for name, capture in (("plain", False), ("captured", True)):
        start = time.perf_counter()
        losses[name] = _last_losses(x, parameters, capture)
        seconds[name] = time.perf_counter() - start
    print(f"two epochs of {len(x)} beats, seconds: {seconds}")
    print(f"losses: {losses}")
    ratio = losses["captured"]["reconstruction"] / losses["plain"]["reconstruction"]
    return abs(ratio - 1) < LOSS_TOLERANCE


def stopped(x: np.ndarray, there: str = "cuda") -> bool:
    """Train the segment's model for two epochs, at once and stopped after one: alike; what goes on is what was saved.

    Losses of one seed differ from run to run by more than want of the moments would move them, so those are compared
    as they are: weights, moments and their steps, once a step is captured, are the checkpoint's to the bit.
    """
    parameters = replace(defaults("arrhythmia", "by-beat"), epochs=2, cooldown=0)
    ways: dict[str, Sequence[int | None]] = {"at once": (None,), "stopped": (1, None)}
    found = {
        way: [_last_losses(x, parameters, stop_after=last, there=there)["reconstruction"] for _ in range(REPEATS)]
        for way, last in ways.items()
    }
    whole, in_pieces = (float(np.median(losses)) for losses in found.values())
    same = _same_state(x, parameters, there)
    print(f"two epochs at once and stopped after one, losses: {found}; state that goes on is what was saved: {same}")
    return same and abs(in_pieces / whole - 1) < REPEATED_TOLERANCE


def _same_state(x: np.ndarray, parameters: Parameters, there: str) -> bool:
    with tempfile.TemporaryDirectory() as before, tempfile.TemporaryDirectory() as after:
        train.fit(x, x[:1000], parameters, Path(before), torch.device(there), stop_after=1)
        model, optimizer = train.begin(parameters, x.shape[1], torch.device(there))
        said = train._resume(Path(before), model, optimizer)
        batch = torch.from_numpy(x[: parameters.batch]).to(there)
        train.make_step(model, optimizer, parameters, batch, capture=there == "cuda")
        train._save(Path(after), model, optimizer, *said)
        files = [load_file(Path(folder) / "checkpoint.safetensors") for folder in (before, after)]
    return files[0].keys() == files[1].keys() and all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def _last_losses(
    x: np.ndarray,
    parameters: Parameters,
    capture: bool = True,
    stop_after: Sequence[int | None] = (None,),
    there: str = "cuda",
) -> dict[str, float]:
    """Train, in pieces that end after so many epochs in all; return the last epoch's losses."""
    with tempfile.TemporaryDirectory() as folder:
        for last in stop_after:
            train.fit(x, x[:1000], parameters, Path(folder), torch.device(there), last, capture)
        return train.checkpoint_losses(Path(folder) / "checkpoint.safetensors")[-1]


def dropout(x: np.ndarray) -> str:
    """Return the losses of the segment's model, which drops out, after an epoch, plain and captured, of some seeds."""
    lines = ["| seed | plain | captured |", "|---:|---:|---:|"]
    for seed in SEEDS:
        parameters = replace(defaults("arrhythmia", "by-beat"), epochs=1, cooldown=0, seed=seed)
        found = [_last_losses(x, parameters, capture)["reconstruction"] for capture in (False, True)]
        lines.append(f"| {seed} | {found[0]:.4f} | {found[1]:.4f} |")
    return "\n".join(lines)


def steps(there: str = "cuda", count: int = 300) -> str:
    """Return a table of milliseconds a captured training step, of one model alone, by what its products are in."""
    lines = ["| model | float32 (TF32 convolutions) | bfloat16 |", "|---|---:|---:|"]
    for name, parameters in _models().items():
        found = []
        for precision in ("float32", "bfloat16"):
            given = replace(parameters, precision=precision)
            x = torch.rand(given.batch, trial.lengths(given.dataset)[0], device=there)
            model, optimizer = train.begin(given, x.shape[1], torch.device(there))
            step = train.make_step(model, optimizer, given, x, capture=there == "cuda")
            step(x, 0.0)[0].item()
            start = time.perf_counter()
            for _ in range(count):
                losses = step(x, 0.0)
            losses[0].item()
            found.append(1e3 * (time.perf_counter() - start) / count)
        lines.append(f"| {name} | {found[0]:.3f} | {found[1]:.3f} |")
    return "\n".join(lines)


def _models() -> dict[str, Parameters]:
    by_beat = defaults("arrhythmia", "by-beat")
    encoders = {f"ECG, {name.upper()}": replace(by_beat, encoder=name) for name in ("tcn", "cnn", "lstm")}
    return {**encoders, "MNIST": defaults("mnist"), "CIFAR-10": defaults("cifar-10")}


def encoding(there: str = "cuda") -> bool:
    """Encode made-up segments with the paper's TCN on GPU and CPU: the same latents and NSE, how quick by batch."""
    torch.manual_seed(0)
    model, x = segment_model().eval(), np.random.default_rng(0).random((max(ENCODED), 187), np.float32)
    expected = encoded(model, x[:1000])
    model.to(there)
    differing = [
        float((np.abs(one - other).max(axis=0) / other.std(axis=0)).max())
        for one, other in zip(encoded(model, x[:1000]), expected, strict=True)
    ]
    rates = {}
    for batch in ENCODED:
        encoded(model, x[:batch], batch)
        start = time.perf_counter()
        encoded(model, x, batch)
        rates[batch] = round(len(x) / (time.perf_counter() - start))
    print(
        f"encoded beats, largest difference between GPU and CPU, in deviations: {differing}; beats/s by batch: {rates}"
    )
    return max(differing) <= ENCODED_TOLERANCE


def at_once(there: str = "cuda", size: trial.Size = trial.FULL) -> str:
    """Return a table of how many of the paper's models train at once, as `ecgwatch benchmark paper` tries it."""
    on = torch.device(there)
    lines = ["| model | tried | at once | encoding batch |", "|---|---|---:|---:|"]
    for name, parameters in _models().items():
        with tempfile.TemporaryDirectory() as folder:
            plan = trial.plan(parameters, on, Path(folder) / "device.json", trial.most(on), size=size)
        lines.append(f"| {name} | {plan.measured} | {plan.training} | {plan.batch:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
