"""Latent means of normal training beats -> the frozen t-SNE map that the worker reads."""

import numpy as np
from openTSNE import TSNE, TSNEEmbedding

from ecgwatch.tsne_map import PEERS, ReferenceMap, mean_z

SMALL = 3000  # points; below it Barnes-Hut is the quicker way to the same gradient (1,000 points: 6 s against 23 s)


def choose(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose beats for the map, the same number from each group as far as it has them; positions int[<=count].

    groups: [n], the record of each beat: a patient with many beats does not crowd out one with few.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(groups))
    turn = np.empty(len(groups), int)
    for group in np.unique(groups):
        rows = order[groups[order] == group]
        turn[rows] = np.arange(len(rows))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:count])


def embed(points: np.ndarray, perplexity: float, seed: int, learning_rate: float = 200) -> TSNEEmbedding:
    """Embed points float32[n, d] with t-SNE: 1,000 iterations in all (section 4).

    250 of them are with early exaggeration, van der Maaten's default.
    """
    return TSNE(
        perplexity=perplexity,
        learning_rate=learning_rate,
        early_exaggeration_iter=250,
        n_iter=750,
        random_state=seed,
        n_jobs=1,  # the sum over threads is not repeatable
        negative_gradient_method="bh" if len(points) < SMALL else "fft",
        verbose=False,
    ).fit(points.astype(np.float64))


def fit(latents: np.ndarray, perplexity: float, seed: int, peers: int = PEERS) -> ReferenceMap:
    """Make the map of latents float32[n, d]."""
    positions = np.asarray(embed(latents, perplexity, seed), np.float32)
    return ReferenceMap(latents, positions, peer_distances(latents, peers), perplexity, mean_z(positions))


def undrawn(latents: np.ndarray, perplexity: float, peers: int = PEERS) -> ReferenceMap:
    """Return a map without places: its distances rank points as the drawn map's do, in another unit."""
    nowhere = np.zeros((len(latents), 2), np.float32)
    return ReferenceMap(latents, nowhere, peer_distances(latents, peers), perplexity, 1.0)


def peer_distances(latents: np.ndarray, peers: int = PEERS) -> np.ndarray:
    """Return the median distance of a reference to its 1st, ... last neighbour, float32[peers]."""
    bare = ReferenceMap(latents, np.zeros((len(latents), 2), np.float32), np.ones(1, np.float32), 30.0, 1.0)
    # the beat itself, at distance 0, is among them: one more, and the first left out
    nearest = np.sort(bare.nearest(latents, peers + 1), axis=1)[:, 1:]
    return np.sqrt(np.median(nearest, axis=0)).astype(np.float32)
