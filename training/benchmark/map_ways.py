"""Ways to place test points among reference points, and the distance D (eq. 4) that each gives.

Every way takes the same latent means and answers the same question: how far is a test point from its k nearest
reference points? `joint` is the paper's algorithm 1; `virtual_peers` is ours (ecgwatch.tsne_map); the others are the
published ways to add a point to a finished map, and the plain distance among latents that a map has to beat.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from openTSNE import TSNEEmbedding
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from ecgwatch.tsne_map import PEERS, ReferenceMap, mean_z
from training import reference_map
from training.benchmark import lion, neural_map
from training.run_folder import read_arrays

K = (1, 3, 5)  # the paper used 1 and found 3 and 5 alike (section 4)
# the paper's 200 (section 4). Its numbers are the defaults of scikit-learn's TSNE of 2019 (version 0.20), and that rate
# is 800 in openTSNE: scikit-learn's page says of openTSNE's rates that they are "4 times smaller than ours"
PAPER_RATE = 800


@dataclass(frozen=True)
class Points:
    """What is placed, and among what; latent means float32[., d].

    references: normal training points. held_out: normal points that set the scale of D. test: those of the figures.
    """

    references: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    perplexity: float
    seed: int
    peers: int = PEERS

    @cached_property
    def embedding(self) -> TSNEEmbedding:
        """The references' own t-SNE map, as openTSNE has it."""
        made = reference_map.embed(self.references, self.perplexity, self.seed)
        made.prepare_interpolation_grid()  # the first transform would move the map otherwise
        return made

    @cached_property
    def frozen(self) -> ReferenceMap:
        """The same map as it is shipped."""
        positions = np.asarray(self.embedding, np.float32)
        peers = reference_map.peer_distances(self.references, self.peers)
        return ReferenceMap(self.references, positions, peers, self.perplexity, mean_z(positions))


@dataclass(frozen=True)
class Placed:
    """D of the test points and of the points that set its scale, float64[., len(K)], and the map they lie in.

    places: of the test points, [m, 2]; among: of the references, [n, 2]; both empty where there is no map.
    """

    test: np.ndarray
    scale: np.ndarray
    places: np.ndarray
    among: np.ndarray
    seconds: float = 0.0

    def save(self, file: Path) -> None:
        """Write the arrays as .npz, whole or not at all."""
        partial = file.with_suffix(".part.npz")
        places, among = (one.astype(np.float32) for one in (self.places, self.among))
        np.savez_compressed(partial, test=self.test, scale=self.scale, places=places, among=among, seconds=self.seconds)
        partial.replace(file)


def load(file: Path) -> Placed:
    """Read what `Placed.save` wrote; raises DataError naming a file that is damaged."""
    arrays = read_arrays(file)
    return Placed(**arrays | {"seconds": float(arrays["seconds"])})  # type: ignore[arg-type]  # the others are arrays


def joint(points: Points) -> Placed:
    """The paper's way: references and test points embedded together (algorithm 1).

    Held-out points would change the map, so the scale is that of the references among each other.
    """
    every = np.concatenate([points.references, points.test])
    both = reference_map.embed(every, points.perplexity, points.seed, PAPER_RATE)
    positions = np.asarray(both, np.float32)
    references, test = np.split(positions, [len(points.references)])
    return Placed(distances(test, references), distances(references, references, itself=True), test, references)


def transform(points: Points, perplexity: float) -> Placed:
    """openTSNE's way to add points to a finished map; each is placed by itself."""

    def place(latents: np.ndarray) -> np.ndarray:
        return np.asarray(points.embedding.transform(latents.astype(np.float64), perplexity=perplexity), np.float32)

    return _in_map(points, place)


def lion_tsne(points: Points) -> Placed:
    """LION-tSNE: interpolation near the references, a free place for outliers (arXiv 1708.04983)."""
    interpolator = lion.fit(points.references, points.frozen.positions, points.seed)
    return _in_map(points, lambda latents: lion.place(interpolator, latents))


def neural(points: Points) -> Placed:
    """A network that learned a joint map of the references and made-up outliers (the paper's outlook)."""
    network = neural_map.fit(points.references, points.perplexity, points.seed)
    test, held_out = (neural_map.place(network, latents) for latents in (points.test, points.held_out))
    return _measured(test, held_out, network.positions)


def umap(points: Points) -> Placed:
    """UMAP in the place of t-SNE, test points added by its `transform`."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no tensorflow, that a fixed seed means one thread
        from umap import UMAP

        made = UMAP(n_neighbors=round(points.perplexity), random_state=points.seed).fit(points.references)
        test, held_out = made.transform(points.test), made.transform(points.held_out)
    return _measured(test, held_out, made.embedding_)


def latent(points: Points) -> Placed:
    """No map: the nearest references among the latents."""
    search = NearestNeighbors(algorithm="brute").fit(points.references)
    test, held_out = (_means(search.kneighbors(part, max(K))[0]) for part in (points.test, points.held_out))
    return Placed(test, held_out, _NOWHERE, _NOWHERE)


def virtual_peers(points: Points) -> Placed:
    """Ours: drawn in the frozen map where its affinity mass says (ecgwatch.tsne_map)."""
    return _in_map(points, points.frozen.place)


def permuted(points: Points) -> Placed:
    """Ours, in a map whose places were dealt out among the references at random: what does the map itself add?"""
    places = np.random.default_rng(points.seed).permutation(points.frozen.positions)
    return _in_map(points, replace(points.frozen, positions=places).place, places)


def affinity(points: Points) -> Placed:
    """Ours without drawing: D from the affinity mass (k = 1 alone; the map gives its unit and no more)."""
    undrawn = reference_map.undrawn(points.references, points.perplexity, points.peers)
    test, held_out = (undrawn.distance(part)[:, None].repeat(len(K), 1) for part in (points.test, points.held_out))
    return Placed(test, held_out, _NOWHERE, _NOWHERE)


WAYS: dict[str, Callable[[Points], Placed]] = {
    "joint map": joint,
    "transform, perplexity 5": lambda points: transform(points, 5),
    "transform, perplexity 30": lambda points: transform(points, 30),
    "LION-tSNE": lion_tsne,
    "neural t-SNE": neural,
    "UMAP": umap,
    "latent neighbours": latent,
    "virtual peers": virtual_peers,
    "virtual peers, map permuted": permuted,
}
# those that can afford every training point as a reference
WITH_ALL: dict[str, Callable[[Points], Placed]] = {
    "latent neighbours, all references": latent,
    "virtual peers, all references": affinity,
}
_NOWHERE = np.zeros((0, 2), np.float32)


def timed(way: Callable[[Points], Placed], points: Points) -> Placed:
    """Place the points and note how long it took, seconds; the reference map itself is made before."""
    if way not in (joint, latent, affinity):  # the others but for two begin from a frozen map
        _ = points.frozen
    start = time.perf_counter()
    placed = way(points)
    return replace(placed, seconds=time.perf_counter() - start)


def distances(places: np.ndarray, references: np.ndarray, itself: bool = False) -> np.ndarray:
    """Return D (eq. 4) for each k of K, float64[m, len(K)].

    places: [m, 2]; references: [n, 2]; itself: the places are those of the references, and none is its own neighbour.
    """
    found = cKDTree(references).query(places, max(K) + itself)[0]
    return _means(found[:, itself:])


def _in_map(points: Points, place: Callable[[np.ndarray], np.ndarray], positions: np.ndarray | None = None) -> Placed:
    """Place test and held-out points in the frozen map, and measure there."""
    return _measured(
        place(points.test), place(points.held_out), points.frozen.positions if positions is None else positions
    )


def _measured(test: np.ndarray, held_out: np.ndarray, positions: np.ndarray) -> Placed:
    return Placed(distances(test, positions), distances(held_out, positions), test, positions)


def _means(nearest: np.ndarray) -> np.ndarray:
    """Mean over the k nearest for each k of K: [m, max(K)] in ascending order -> [m, len(K)]."""
    return np.cumsum(nearest, axis=1, dtype=np.float64)[:, np.array(K) - 1] / np.array(K)
