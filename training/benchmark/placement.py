"""One beat at a time: the frozen map beside the joint map of the paper, and beside every published way out.

    ecgwatch benchmark placement            # hours; goes on where it was stopped
    ecgwatch benchmark placement --quick    # one seed, ECG only, little training, fewer points: under half an hour

Three steps, each saved: train a model (as `ecgwatch train` would, in the same run folder), encode its points, place
them in every way of `map_ways`. Tables and pictures are then made from what is saved (`placement_tables`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import reference_map, train
from training.benchmark import map_ways
from training.datasets.dataset import Dataset
from training.datasets.read import read
from training.models import ENCODED, BetaVAE, encoded, unit_latents
from training.parameters import CLASSES, Parameters
from training.run_folder import open_run, read_arrays, read_parameters

HELD_OUT = 2000  # normal points that set the scale of D and NSE


@dataclass(frozen=True)
class Size:
    """How much is trained and placed; None: what the model's parameters say, all that there is.

    test: test points, at least; least_normal: of them; most_abnormal: of them, all where it is None.
    """

    references: int = 5000  # as in the paper's maps (figure 3), and so the test points
    test: int = 5000
    least_normal: int = 2500
    most_abnormal: int | None = None
    beats: int | None = None
    epochs: tuple[int, int] | None = None  # and cool-down


FULL = Size()
QUICK = Size(references=2000, test=2000, least_normal=1000, most_abnormal=1000, beats=6000, epochs=(4, 1))


@dataclass(frozen=True)
class Experiment:
    """One model and its test: which classes are normal, which seed."""

    dataset: str
    normal: tuple[str, ...]
    seed: int
    quick: bool = False
    beta: float = Parameters.beta
    encoder: str = Parameters.encoder  # of ECG; images have one network
    split: str = ""  # of ECG; empty: by beat
    share: float = 1.0  # of the training part that trains

    @property
    def size(self) -> Size:
        """Return how much is trained and placed."""
        return QUICK if self.quick else FULL

    @property
    def name(self) -> str:
        """Return its folder's name; models of the release keep theirs."""
        said = (self.split or "by-beat") if self.dataset == "arrhythmia" else self.dataset
        which = "" if self.normal == ("N",) else f"anomaly-{''.join(self.absent)}-"
        other = {"beta": f"beta-{self.beta:g}", "encoder": self.encoder, "share": f"share-{self.share:g}"}
        kept = [text for name, text in other.items() if getattr(self, name) != getattr(type(self), name)]
        return "-".join([f"{said}-{which}{self.seed}", *kept, *(["quick"] if self.quick else [])])

    @property
    def title(self) -> str:
        """Return what tables call it."""
        return "N normal" if self.normal == ("N",) else f"{self.absent[0]} anomalous"

    @property
    def split_name(self) -> str:
        """Return how training and test are divided."""
        return self.split or ("by-beat" if self.dataset == "arrhythmia" else "by-image")

    @property
    def absent(self) -> tuple[str, ...]:
        """Return the classes that are anomalous."""
        return tuple(one for one in CLASSES[self.dataset] if one not in self.normal)


def experiments(datasets: Sequence[str], quick: bool = False) -> list[Experiment]:
    """Return what is compared: each class as the anomaly, one seed; for ECG also 'N only is normal', three seeds."""
    found = []
    for dataset in datasets:
        if dataset == "arrhythmia":
            found += [Experiment(dataset, ("N",), seed, quick) for seed in ((0,) if quick else (0, 1, 2))]
        every = tuple(CLASSES[dataset])
        found += [Experiment(dataset, tuple(c for c in every if c != one), 0, quick) for one in every]
    return found


def run(
    chosen: Sequence[Experiment], base: Mapping[str, Parameters], data: Path, runs: Path, jobs: int, on: torch.device
) -> None:
    """Do what is not done yet, several experiments at once, each on one core; `on`: where models are trained.

    base: of each data set, parameters of the models, but for classes and seed; data: the data directory; runs: where
    the run folders lie.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = {pool.submit(_all_steps, one, base[one.dataset], data, runs, on): one for one in chosen}
        for number, done in enumerate(as_completed(waiting), 1):
            done.result()
            print(f"{number}/{len(chosen)} {waiting[done].name}", flush=True)


def _all_steps(experiment: Experiment, base: Parameters, data: Path, runs: Path, on: torch.device) -> None:
    torch.set_num_threads(1)
    folder = runs / experiment.name
    if not (folder / "points.npz").exists():
        encode(experiment, base, data, folder, on)
    place(folder, experiment.seed)


@dataclass(frozen=True)
class Prepared:
    """A trained model, where it was trained, and the positions in its data set of what is compared.

    parts: train, held_out, test; references: positions among those of train; units: of each latent dimension, in those
    that the network was trained in, float32[latent]; batch: points encoded at a time; waited_s: for the turn to train.
    """

    model: BetaVAE
    parameters: Parameters
    data: Dataset
    parts: Mapping[str, np.ndarray]
    references: np.ndarray
    units: np.ndarray
    batch: int
    waited_s: float


def parameters_of(experiment: Experiment, base: Parameters) -> Parameters:
    """Return what an experiment's model is trained with; base: of its data set."""
    chosen: dict[str, Any] = {name: getattr(experiment, name) for name in ("normal", "seed", "beta", "encoder")}
    chosen["split"] = experiment.split or base.split
    if experiment.size.epochs:
        chosen["epochs"], chosen["cooldown"] = experiment.size.epochs
    return replace(base, **chosen)


def prepare(
    experiment: Experiment,
    base: Parameters,
    data: Path,
    folder: Path,
    on: torch.device,
    batch: int = ENCODED,
    turn: AbstractContextManager[Any] | None = None,
) -> Prepared:
    """Read the data, and train the model where it is not trained yet; a finished run keeps its own parameters.

    turn: what training waits for.
    """
    size = experiment.size
    if (folder / "points.npz").exists():
        parameters = read_parameters(folder)
    else:
        parameters = parameters_of(experiment, base)
        open_run(folder, parameters)
    _, inputs, split = read(parameters, data)
    kinds, rows = inputs.classes, split.train
    groups = inputs.records if experiment.dataset == "arrhythmia" else kinds  # references are drawn evenly from each
    if size.beats:
        rows = rows[reference_map.choose(groups[rows], size.beats, experiment.seed)]
    if experiment.share < 1:
        drawn = np.random.default_rng(experiment.seed).permutation(len(rows))
        rows = np.sort(rows[drawn[: round(experiment.share * len(rows))]])
    asked = time.perf_counter()
    with turn or nullcontext():
        waited_s = time.perf_counter() - asked
        model = train.fit(inputs.training(rows), inputs.x[split.calibration], parameters, folder, on).to(on)
    units = torch.ones(parameters.latent)
    if parameters.unit_latents:
        units = unit_latents(model, torch.from_numpy(inputs.x[rows]), batch)
    test = choose_test(~np.isin(kinds[split.test], experiment.normal), experiment.seed, size)
    held_out = np.random.default_rng(experiment.seed).permutation(split.calibration)[:HELD_OUT]
    parts = {"train": rows, "held_out": held_out, "test": split.test[test]}
    references = reference_map.choose(groups[rows], size.references, experiment.seed)
    return Prepared(model, parameters, inputs, parts, references, units.cpu().numpy(), batch, waited_s)


def encode(experiment: Experiment, base: Parameters, data: Path, folder: Path, on: torch.device) -> None:
    """Train the model where it is not trained, and write `points.npz`: latents and NSE of all that is compared."""
    save_points(prepare(experiment, base, data, folder, on), folder)


def save_points(made: Prepared, folder: Path) -> None:
    """Write `points.npz`, whole or not at all."""
    arrays: dict[str, Any] = {}
    for name, part in made.parts.items():
        arrays[f"{name}_latents"], arrays[f"{name}_nse"] = encoded(made.model, made.data.x[part], made.batch)
    kinds = made.data.classes[made.parts["test"]]
    partial = folder / "points.part.npz"
    np.savez_compressed(
        partial,
        **arrays,
        references=made.references,
        abnormal=~np.isin(kinds, made.parameters.normal),
        kinds=kinds,
        perplexity=made.parameters.perplexity,
        peers=made.parameters.peers,
    )
    partial.replace(folder / "points.npz")


def choose_test(abnormal: np.ndarray, seed: int, size: Size = FULL) -> np.ndarray:
    """Return positions of the abnormal points and of as many normal ones as the size asks for, int[.], in order."""
    rng = np.random.default_rng(seed)
    normal, chosen = rng.permutation(np.flatnonzero(~abnormal)), np.flatnonzero(abnormal)
    if size.most_abnormal is not None:
        chosen = rng.permutation(chosen)[: size.most_abnormal]
    count = max(size.least_normal, size.test - len(chosen))
    return np.sort(np.concatenate([chosen, normal[:count]]))


def read_points(folder: Path, seed: int, all_references: bool = False) -> map_ways.Points:
    """Read what is placed, and among what, from `points.npz`."""
    saved = read_arrays(folder / "points.npz")
    every = saved["train_latents"]
    return map_ways.Points(
        every if all_references else every[saved["references"]],
        saved["held_out_latents"],
        saved["test_latents"],
        float(saved["perplexity"]),
        seed,
        int(saved["peers"]),
    )


def place(folder: Path, seed: int) -> None:
    """Place the points in every way that has no file yet."""
    place_in(map_ways.WAYS, read_points(folder, seed), folder)
    place_in(map_ways.WITH_ALL, read_points(folder, seed, all_references=True), folder)


def place_in(
    ways: Mapping[str, Callable[[map_ways.Points], map_ways.Placed]], points: map_ways.Points, folder: Path
) -> None:
    """Place points in those of some ways that have no file yet."""
    for name, way in ways.items():
        file = way_file(folder, name)
        if not file.exists():
            placed = map_ways.timed(way, points)
            placed.save(file)
            print(f"{folder.name}: {name}, {placed.seconds:.0f} s", flush=True)


def way_file(folder: Path, way: str) -> Path:
    """Return where a way's distances are saved."""
    return folder / f"placed {way}.npz"
