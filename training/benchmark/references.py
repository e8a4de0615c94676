"""Which normal beats serve as references, and how many: AUROC against cost, by cross-validation over training patients.

The encoder is that of a bundle; the patients it was trained on are parted into folds, and the references of a fold's
beats come from the other folds' patients. So the map has never seen the patient that it is asked about; the encoder has
seen his normal beats, as it has seen those of every choice that is compared. DS2 is not looked at.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from tqdm import tqdm

from ecgwatch.bundle import Bundle
from ecgwatch.scorer import WHOLE, Model
from ecgwatch.tsne_map import ReferenceMap
from training import reference_map, score_graph
from training.benchmark.auroc import auroc
from training.benchmark.placement_tables import scaled
from training.calibrate import ALPHA
from training.datasets.dataset import Dataset, Split
from training.text import markdown_table

COUNTS = (200, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000)
SEEDS = (0, 1, 2)
FOLDS = 4
CLUSTERS = 100
BATCHES = (1, 64, 1024)
PERPLEXITY = 30.0
_REPEATS_S = 3.0  # how long each cost is measured
_AT_ONCE = 64  # beats, at least, before the other model has its turn: both then find their weights in the cache


@dataclass(frozen=True)
class Choice:
    """How good a choice of references is: mean AUROC over folds, N against the rest; seed: of the draw."""

    way: str
    count: int
    seed: int
    d: float
    s: float


@dataclass(frozen=True)
class Cost:
    """CPU microseconds per beat of the whole score and of the model without the map, on one core."""

    count: int
    batch: int
    whole_us: float
    bare_us: float

    @property
    def share(self) -> float:
        """Return the map's share of the whole."""
        return 1 - self.bare_us / self.whole_us


def at_random(latents: np.ndarray, patients: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose any beats, positions int[count]."""
    return np.random.default_rng(seed).permutation(len(latents))[:count]


def by_patient(latents: np.ndarray, patients: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose as many beats of each patient, as far as he has them: what `ecgwatch train` does."""
    return reference_map.choose(patients, count, seed)


def by_cluster(latents: np.ndarray, patients: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose as many beats of each of CLUSTERS clusters of latents, as far as it has them."""
    clusters = MiniBatchKMeans(CLUSTERS, random_state=seed, n_init=1, batch_size=4096).fit_predict(latents)
    return reference_map.choose(clusters, count, seed)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "at random": at_random,
    "by patient": by_patient,
    "by cluster": by_cluster,
}


def cross_validate(
    bundle: Bundle, beats: Dataset, split: Split, counts: Sequence[int] = COUNTS, seeds: Sequence[int] = SEEDS
) -> list[Choice]:
    """Return the figures of each way, count and seed, over the folds of the split's training patients.

    A count that the patients of a fold's map do not have is left out.
    """
    encoder = Model(bundle.model, provider="cpu", threads=0)
    trained = sorted(set(beats.records[split.train].tolist()))
    folds = [trained[start::FOLDS] for start in range(FOLDS)]
    every = np.flatnonzero(np.isin(beats.records, trained))  # the abnormal beats of these patients are tested too
    latents, nse = encoder.run(beats.x[every])
    records, abnormal = beats.records[every], ~np.isin(beats.classes[every], list(split.normal))
    usable = np.isin(every, split.train)
    held_out, held_out_nse = encoder.run(beats.x[split.calibration])
    choices = []
    tasks = list(itertools.product(WAYS, counts, seeds))
    for name, count, seed in tqdm(tasks, desc="choices of references", unit="choice"):
        figures = []
        for fold in folds:
            asked = np.isin(records, fold)
            pool = np.flatnonzero(usable & ~asked)
            if count > len(pool):
                break
            rows = pool[WAYS[name](latents[pool], records[pool], count, seed)]
            found = _terms(bundle, latents[rows], (latents[asked], held_out))
            s = ALPHA * scaled(nse[asked], held_out_nse) + (1 - ALPHA) * scaled(*found)
            figures.append([float(auroc(one, abnormal[asked])[0]) for one in (found[0], s)])
        if len(figures) == len(folds):
            choices.append(Choice(name, count, seed, *np.mean(figures, axis=0).tolist()))
    return choices


def chosen(choices: Sequence[Choice], way: str = "by patient") -> int:
    """Return the count of the default: the one with the best S, a mean over seeds; of several, the fewest."""
    of_way = [one for one in choices if one.way == way]
    s = {count: float(np.mean([one.s for one in of_way if one.count == count])) for count in {c.count for c in of_way}}
    return min(count for count, value in s.items() if value == max(s.values()))


def _terms(bundle: Bundle, references: np.ndarray, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
    """D up to a constant, which no AUROC sees."""
    undrawn = reference_map.undrawn(references, bundle.map.perplexity, len(bundle.map.peer_distances))
    return [undrawn.distance(one) for one in asked]


def costs(bundle: Bundle, x: np.ndarray, latents: np.ndarray, counts: Sequence[int] = COUNTS) -> list[Cost]:
    """Time the whole graph with so many references, and the encoder alone, in turn; x: prepared beats.

    latents: of training beats, where the references are drawn from with replacement, each slightly moved.
    """
    bare = score_graph.encoder_of(bundle.model)
    scales = (bundle.manifest.nse, bundle.manifest.distance)
    alone = Model(bare, "cpu", 1)
    found = []
    for count in counts:
        rng = np.random.default_rng(0)
        rows = latents[rng.integers(len(latents), size=count)]
        moved = (rows + rng.normal(size=rows.shape) * 0.01 * latents.std(axis=0)).astype(np.float32)
        peers = bundle.map.peer_distances
        made = ReferenceMap(moved, np.zeros((count, 2), np.float32), peers, bundle.map.perplexity, bundle.map.mean_z)
        whole = Model(score_graph.append_map(bare, made, scales, ALPHA), "cpu", 1, WHOLE)
        for batch in BATCHES:
            seconds = _in_turn(whole, alone, x[:batch])
            found.append(Cost(count, batch, *(1e6 * one / batch for one in seconds)))
    return found


def transform_us(latents: np.ndarray, count: int = 5000, repeats: int = 5) -> float:
    """Return the median CPU microseconds of openTSNE's `transform` for one beat among `count` references."""
    rows = np.random.default_rng(0).permutation(len(latents))[: count + repeats]
    embedding = reference_map.embed(latents[rows[:count]], PERPLEXITY, 0)
    embedding.prepare_interpolation_grid()
    taken = []
    for row in rows[count:]:
        start = time.process_time()
        embedding.transform(latents[row : row + 1].astype(np.float64), perplexity=PERPLEXITY)
        taken.append(1e6 * (time.process_time() - start))
    return float(np.median(taken))


def _in_turn(one: Model, other: Model, x: np.ndarray) -> tuple[float, float]:
    """Return CPU seconds of a call of each, the lowest decile of calls in turn: a shared machine only adds to them."""
    times: tuple[list[float], list[float]] = ([], [])
    calls = -(-_AT_ONCE // len(x))
    end = time.perf_counter() + _REPEATS_S
    while time.perf_counter() < end or len(times[0]) < 5:
        for model, taken in zip((one, other), times, strict=True):
            start = time.process_time()
            for _ in range(calls):
                model.run(x)
            taken.append((time.process_time() - start) / calls)
    return float(np.quantile(times[0], 0.1)), float(np.quantile(times[1], 0.1))


def tables(choices: Sequence[Choice], costs: Sequence[Cost]) -> str:
    """Return the curve (mean and standard deviation over seeds) and the costs as two Markdown tables."""
    counts = sorted({one.count for one in choices})
    lines = [["references", *(f"{way}: {term}" for way in WAYS for term in "DS")]]
    lines.append(["---:"] * len(lines[0]))
    for count in counts:
        cells = []
        for way, term in itertools.product(WAYS, "ds"):
            found = [getattr(one, term) for one in choices if (one.way, one.count) == (way, count)]
            cells.append(f"{np.mean(found):.3f} ± {np.std(found):.3f}")
        lines.append([f"{count:,}", *cells])
    costly = [["references", *(f"batch {batch}" for batch in BATCHES)], ["---:"] * (1 + len(BATCHES))]
    for count in sorted({one.count for one in costs}):
        of_batch = {one.batch: one for one in costs if one.count == count}
        shown = (of_batch[batch] for batch in BATCHES)
        costly.append([f"{count:,}", *(f"{one.whole_us:.0f} us, map {100 * one.share:.0f} %" for one in shown)])
    return "\n\n".join(markdown_table(table) for table in (lines, costly))
