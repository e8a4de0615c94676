"""The cells of the paper's grid, each computed once: train, encode, sample, map.

A cell is (data set, split, anomalous class, beta, encoder, seed, share of the training part): an `Experiment` of
`training.benchmark.placement`, in the run folder that `ecgwatch benchmark placement` would use, so that neither trains
what the other has trained. Each step leaves a file, whole or not at all, and training leaves its checkpoint: a cell
that was stopped anywhere goes on where it was. On a GPU only as many cells train at once as it likes (`trial`), and
the others read or map, a core each.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial, partialmethod
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from ecgwatch.errors import ConfigError, DataError
from training.benchmark import map_ways, placement
from training.benchmark.paper import trial
from training.benchmark.placement import Experiment, way_file
from training.models import ENCODED, BetaVAE, exact
from training.parameters import CLASSES, Parameters
from training.run_folder import as_json, differing, read_arrays, read_parameters
from training.text import write_atomically
from training.train import checkpoint_machines

BETAS = (0.01, 0.05, 0.1, 0.3, 1.0)  # of the tables
# of the heat maps (figure 2) and of every beta that figures 3, 9-11 and table 2 name; the paper leaves its grid open
ALL_BETAS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 2.0, 4.0, 5.0, 7.0, 10.0)
HEAT = {"mnist": "7", "fashion-mnist": "3", "small-norb": "1", "cifar-10": "5", "arrhythmia": "F"}  # figure 2
MAPPED = {"mnist": "3", "fashion-mnist": "1", "arrhythmia": "Q"}  # figures 9-11
MAP_BETAS = (0.01, 0.8, 5.0, 10.0)
ENCODERS = ("tcn", "cnn", "lstm")
SHARES = (0.05, 0.1, 0.25, 0.5)  # beside all of the training part
SEEDS = (0, 1, 2)
SPLITS = ("by-beat", "by-time", "inter-patient")
DATASETS = tuple(CLASSES)

JOINT, JOINT_Z = "joint map", "joint map of z"
WAYS = {name: map_ways.WAYS[name] for name in (JOINT, "latent neighbours", "virtual peers")}
EXAMPLES = 4  # of each kind, for figure 6
LOOK_S = 2.0  # between two looks at how far the cells are


def grid(datasets: Sequence[str] = DATASETS, quick: bool = False) -> list[Experiment]:
    """Return the cells of the whole paper, those first that most figures need; quick: the same cells, shortened.

    Between patients Q is left out: there are seven such beats.
    """
    ecg = "arrhythmia" in datasets
    images = [name for name in datasets if name != "arrhythmia"]
    found = [one for seed in (SEEDS if ecg else ()) for one in _classes("arrhythmia", seed, quick)]
    found += [one for name in images for one in _classes(name, 0, quick)]
    first = [one for one in found if one.seed == 0]
    found += [replace(one, beta=beta) for beta in BETAS[1:] for one in first]
    found += [replace(one, encoder=encoder) for encoder in ENCODERS[1:] for one in first if one.dataset == "arrhythmia"]
    for chosen, betas in ((HEAT, ALL_BETAS), (MAPPED, MAP_BETAS)):
        found += [replace(one, beta=beta) for one in first if chosen.get(one.dataset) in one.absent for beta in betas]
    found += [replace(one, share=share) for share in SHARES for one in first if one.dataset == "arrhythmia"]
    found += [
        replace(one, split=split)
        for split in SPLITS[1:]
        for one in first
        if one.dataset == "arrhythmia" and (split, one.absent) != ("inter-patient", ("Q",))
    ]
    return list(dict.fromkeys(found))


def matching(grid: Sequence[Experiment], wanted: Mapping[str, Sequence[object]]) -> list[Experiment]:
    """Return the cells of which every field in `wanted` has one of the values."""
    return [one for one in grid if all(value(one, field) in values for field, values in wanted.items())]


def value(one: Experiment, field: str) -> object:
    """Return a field of a cell; 'anomaly': the class that is absent."""
    return "".join(one.absent) if field == "anomaly" else getattr(one, field)


def _classes(dataset: str, seed: int, quick: bool) -> list[Experiment]:
    every = tuple(CLASSES[dataset])
    return [Experiment(dataset, tuple(c for c in every if c != one), seed, quick) for one in every]


class Examples(NamedTuple):
    """Test points, their reconstructions through a sampled z, float32[n, length], and which are abnormal, bool[n]."""

    x: np.ndarray
    y: np.ndarray
    abnormal: np.ndarray


def run(
    wanted: Sequence[Experiment],
    base: Mapping[str, Parameters],
    data: Path,
    runs: Path,
    jobs: int | None,
    on: torch.device,
    budget_s: float | None = None,
    train_only: bool = False,
) -> int:
    """Do what is not done yet, in order, `jobs` cells at once; return how many cells are left.

    base: of each data set, parameters of the models, but for what the cells set; on: where models are trained;
    budget_s: stop after so many seconds, whatever is in progress: the next call goes on from the last epoch and file;
    train_only: leave t-SNE to another machine. jobs: None for all cores; on a GPU a trial then finds how many of the
    cells train at once, and what it found stays in `device.json` beside the run folders. Raises ConfigError where a
    process is killed.
    """
    end = None if budget_s is None else time.monotonic() + budget_s
    waiting = [one for one in wanted if not done(runs / one.name, train_only)]
    untrained = [one for one in waiting if not done(runs / one.name, train_only=True)]
    at_once = jobs or trial.most(on)
    plan = trial.Plan(at_once)
    if jobs is None and on.type == "cuda" and untrained:
        first = replace(base[untrained[0].dataset], encoder=untrained[0].encoder)  # type: ignore[arg-type]  # of the grid
        plan = trial.plan(first, on, runs / "device.json", at_once, end)
    steps = partial(_tried, base=base, data=data, runs=runs, on=on, train_only=train_only, batch=plan.batch)
    in_time = True
    if jobs == 1 and end is None:
        torch.set_num_threads(1)  # as in a pool's processes: with others the last digits of the weights differ
        for one in waiting:
            print(steps(one), flush=True)
    else:
        in_time = _in_processes(steps, waiting, at_once, plan.training, end, partial(_progress, untrained, runs))
    left = sum(not done(runs / one.name, train_only) for one in wanted)
    if not in_time:
        print(f"the budget is used up: {left} of {len(wanted)} cells are left; the same command goes on", flush=True)
    return left


def _in_processes(
    steps: Callable[[Experiment], str],
    waiting: Sequence[Experiment],
    at_once: int,
    training: int,
    end: float | None,
    progress: Callable[[], str] = str,
) -> bool:
    """Do cells in so many processes, of which so many train at once, and say what became of each.

    progress: what is said beside the bar. Returns whether all of it was done before `end`, on the monotonic clock; what
    is then in progress ends.
    """
    context = get_context("spawn")
    pool = ProcessPoolExecutor(at_once, context, _begin, (context.Semaphore(training),))
    try:
        pending = {pool.submit(steps, one) for one in waiting}
        with tqdm(total=len(pending), unit="cell") as bar:
            while pending:
                left_s = math.inf if end is None else end - time.monotonic()
                if left_s <= 0:
                    return False
                finished, pending = wait(pending, min(LOOK_S, left_s), FIRST_COMPLETED)
                for one in finished:
                    with bar.external_write_mode():
                        print(one.result(), flush=True)
                    bar.update()
                bar.set_postfix_str(progress())
        return True
    except BrokenProcessPool:
        raise ConfigError(
            f"one of {at_once} processes was killed, for want of memory perhaps: try a smaller --jobs; the same "
            "command goes on where this one stopped"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.terminate()
            process.join()


def _progress(cells: Sequence[Experiment], runs: Path) -> str:
    """Return how many epochs the models in training have seen: "epochs 3, 17"."""
    files = [runs / one.name / "losses.csv" for one in cells if not done(runs / one.name, train_only=True)]
    epochs = [file.read_text(encoding="utf-8").count("\n") - 1 for file in files if file.exists()]
    return f"epochs {', '.join(map(str, epochs))}" if epochs else ""


_turn: AbstractContextManager[Any] | None = None  # to train: of a pool's processes


def _begin(turn: AbstractContextManager[Any]) -> None:
    """Begin a process of the pool; its bars are off: several on one line would be none."""
    global _turn
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    tqdm.set_lock(RLock())  # its own is shared among processes, and stays behind one that is ended
    _turn = turn


def _end_with_parent() -> None:
    """End this process when the one that began it was killed: nobody waits for the cell any more."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def refuse_another(cell: Experiment, base: Parameters, folder: Path) -> None:
    """Raise DataError where a cell's folder holds a run that was made with other parameters than the cell asks for.

    First weights and precision may be others: tables name them.
    """
    there, wanted = read_parameters(folder), placement.parameters_of(cell, base)
    if said := differing(as_json(there), as_json(wanted), ("initial", "precision")):
        raise DataError(f"{folder} holds a run with other parameters ({said})")


def done(folder: Path, train_only: bool = False) -> bool:
    """Return whether a cell's files are there."""
    ways = () if train_only else (*WAYS, JOINT_Z)
    return all(
        file.exists()
        for file in (folder / "points.npz", folder / "sampled.npz", *(way_file(folder, way) for way in ways))
    )


def _tried(cell: Experiment, **given: Any) -> str:
    """Do a cell's steps; what lacks its data set, or holds another run, says so, and the others go on."""
    try:
        return _steps(cell, **given)
    except (ConfigError, DataError, OSError, SafetensorError) as error:  # the latter two: no space is left
        return f"{cell.name} is left out: {error}"
    except torch.OutOfMemoryError:
        return f"{cell.name} is left out: the GPU's memory is full; the same command goes on"


def _steps(
    cell: Experiment,
    base: Mapping[str, Parameters],
    data: Path,
    runs: Path,
    on: torch.device,
    train_only: bool,
    batch: int,
) -> str:
    folder, start = runs / cell.name, time.perf_counter()
    if not done(folder, train_only=True):
        _train(cell, base[cell.dataset], data, folder, on, batch)
        if on.type == "cuda":
            torch.cuda.empty_cache()  # to those that train while this one maps
    if not train_only:
        points = placement.read_points(folder, cell.seed)
        placement.place_in(WAYS, points, folder)
        saved = read_arrays(folder / "sampled.npz")
        z = replace(points, references=saved["references_z"], test=saved["test_z"])
        placement.place_in({JOINT_Z: map_ways.joint}, z, folder)
    return f"{cell.name}: {time.perf_counter() - start:.0f} s"


def _train(cell: Experiment, base: Parameters, data: Path, folder: Path, on: torch.device, batch: int) -> None:
    """Train a cell's model, and write what it makes of its points."""
    start = time.perf_counter()
    checkpoint = folder / "checkpoint.safetensors"
    whole = not checkpoint.exists()  # not in pieces, of which the time is not known
    made = placement.prepare(cell, base, data, folder, on, batch, _turn)
    if not (folder / "points.npz").exists():
        seconds = round(time.perf_counter() - start - made.waited_s, 1) if whole else None
        machines = ", ".join(checkpoint_machines(checkpoint))
        write_atomically(folder / "made.json", json.dumps({"seconds": seconds, "machine": machines}))
        placement.save_points(made, folder)
    if not (folder / "sampled.npz").exists():
        _save_sampled(made, folder, cell.seed)


@torch.no_grad()
def _save_sampled(made: placement.Prepared, folder: Path, seed: int) -> None:
    """Write `sampled.npz`: one z ~ q(z|x) of references and test points, NSE through it (section 3.5), examples.

    Raises ConfigError where the folder's points are of other data.
    """
    generator = torch.Generator().manual_seed(seed)
    x, kinds = made.data.x, made.data.classes
    rows = {"references": made.parts["train"][made.references], "test": made.parts["test"]}
    rows["held_out"] = made.parts["held_out"]
    sampled = {name: sample(made.model, x[part], generator) for name, part in rows.items()}
    known = read_arrays(folder / "points.npz")["kinds"]
    if not np.array_equal(known, kinds[rows["test"]]):
        raise ConfigError(f"{folder / 'points.npz'} holds other points than this data set's")
    abnormal = ~np.isin(kinds[rows["test"]], made.parameters.normal)
    rng = np.random.default_rng(seed)
    shown = np.concatenate([rng.permutation(np.flatnonzero(mask))[:EXAMPLES] for mask in (~abnormal, abnormal)])
    partial_file = folder / "sampled.part.npz"
    np.savez_compressed(
        partial_file,
        # in the network's own units, as in the paper: in those of the mean's deviation the noise of dimensions that the
        # capacity leaves unused would be all there is
        references_z=sampled["references"].z * made.units,
        test_z=sampled["test"].z * made.units,
        test_nse=sampled["test"].nse,
        held_out_nse=sampled["held_out"].nse,
        examples_x=x[rows["test"][shown]],
        examples_y=sampled["test"].y[shown],
        examples_abnormal=abnormal[shown],
    )
    partial_file.replace(folder / "sampled.npz")


class Sampled(NamedTuple):
    """z float32[n, latent], reconstruction y float32[n, length] and NSE float32[n] (eq. 3)."""

    z: np.ndarray
    y: np.ndarray
    nse: np.ndarray


@torch.no_grad()
def sample(model: BetaVAE, x: np.ndarray, generator: torch.Generator) -> Sampled:
    """Send one z ~ N(mean, deviation) of each x, float32[n, length], through the decoder (algorithm 1).

    The noise is drawn on the CPU, in parts of one size: it is the same on every device.
    """
    parts, on = [], model.mean.weight.device
    with exact():
        for part in torch.from_numpy(x).to(on).split(ENCODED):
            mean, log_variance = model.encode(part)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator).to(on)
            y = model.decode(z, part)
            parts.append((z, y, ((part - y) ** 2).sum(1) / (part**2).sum(1).clamp_min(1e-12)))
    return Sampled(*(torch.cat(of_all).cpu().numpy() for of_all in zip(*parts, strict=True)))
