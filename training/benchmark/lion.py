"""LION-tSNE: add points to a finished t-SNE map by local interpolation with outlier control (arXiv 1708.04983).

A point with references within a radius is placed among them, by inverse-distance weights; one with none is an outlier
and gets a place of its own, away from every reference. Parameters are those of the authors' recommendation: power 20,
radii at the 99th percentile of the distances between nearest neighbours, 10th for places that are close.

The paper also keeps later outliers apart from earlier ones. Here no outlier moves another; which free place one gets is
drawn by its row in the call.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

POWER = 20.0
RADIUS_PERCENTILE = 99.0
CLOSE_PERCENTILE = 10.0


@dataclass(frozen=True)
class Lion:
    """A frozen map, ready to interpolate.

    search: over the references; positions: theirs, [n, 2]; radius: among the latents; close: in the map; lonely:
    bool[n], references without another within the radius; free: [., 2], places for outliers.
    """

    search: NearestNeighbors
    positions: np.ndarray
    radius: float
    close: float
    lonely: np.ndarray
    free: np.ndarray
    seed: int


def fit(references: np.ndarray, positions: np.ndarray, seed: int) -> Lion:
    """Take radii and free places from latents float32[n, d] and their positions float32[n, 2]."""
    search = NearestNeighbors(algorithm="brute").fit(references)
    to_next = search.kneighbors(references, 2)[0][:, 1]
    tree = cKDTree(positions)
    in_map = tree.query(positions, 2)[0][:, 1]
    radius = float(np.percentile(to_next, RADIUS_PERCENTILE))
    apart = float(np.percentile(in_map, RADIUS_PERCENTILE))
    close = float(np.percentile(in_map, CLOSE_PERCENTILE))
    return Lion(search, positions, radius, close, to_next > radius, _free(tree, positions, apart), seed)


def place(lion: Lion, latents: np.ndarray) -> np.ndarray:
    """Return the places of latents float32[m, d], float64[m, 2]."""
    found, among = lion.search.radius_neighbors(latents, lion.radius)
    rng = np.random.default_rng(lion.seed)
    draws = rng.random((len(latents), 2))  # one pair for each point, needed or not
    places = [_one(lion, *one) for one in zip(found, among, draws, strict=True)]
    return np.array(places, np.float64).reshape(-1, 2)


def _one(lion: Lion, distance: np.ndarray, among: np.ndarray, draw: np.ndarray) -> np.ndarray:
    if not len(among):
        return lion.free[int(draw[0] * len(lion.free))]
    if len(among) == 1:
        place = lion.positions[among[0]]
        angle = 2 * np.pi * draw[0]
        # beside a reference that is an outlier itself, else where the only neighbour is
        away = lion.close * draw[1] if lion.lonely[among[0]] else 0.0
        return place + away * np.array([np.cos(angle), np.sin(angle)])
    relative = distance / max(float(distance.min()), 1e-12)  # so that the 20th power stays in range
    weights = np.maximum(relative, 1e-12) ** -POWER
    return weights @ lion.positions[among] / weights.sum()


def _free(tree: cKDTree, positions: np.ndarray, apart: float) -> np.ndarray:
    """Return the centres of cells of side 2 x `apart` that no reference is near, in the map and a rim around it."""
    low, high = positions.min(axis=0) - 2 * apart, positions.max(axis=0) + 2 * apart
    axes = [np.arange(a + apart, b + apart, 2 * apart) for a, b in zip(low, high, strict=True)]
    centres = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    return centres[tree.query(centres)[0] > apart]
