"""Scores that a trained beta-VAE gives without a t-SNE map, and, beside them, the one with it."""

from functools import cache

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ecgwatch.scorer import scaled
from training import calibrate, reference_map
from training.benchmark import map_ways
from training.benchmark.baselines import classical
from training.benchmark.baselines.points import Encoded, Points, Scored


def reconstruction(points: Points, _: float) -> Scored:
    """Score by NSE (eq. 3), alpha = 1 in eq. 2."""
    return _scored(points, points.latents.test_nse)


def neighbours(points: Points, k: float) -> Scored:
    """Score by the mean distance to the k nearest training points among the latents."""
    search = NearestNeighbors(n_neighbors=int(k), algorithm="brute").fit(points.latents.train)
    return _scored(points, search.kneighbors(points.latents.test)[0].mean(axis=1))


def mahalanobis(points: Points, _: float) -> Scored:
    """Score by the Mahalanobis distance to the training points' mean among the latents."""
    train = points.latents.train.astype(np.float64)
    inverse = np.linalg.pinv(np.cov(train, rowvar=False))
    away = points.latents.test - train.mean(axis=0)
    return _scored(points, np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away)))


def vae_ocsvm(points: Points, gamma: float) -> Scored:
    """Score by a one-class SVM on the latents (Andrews et al. 2016)."""
    found = classical.ocsvm(points.latents.train, points.latents.test, gamma, points.seed)
    return _scored(points, found.scores, found.train_points, found.note)


def umap_distance(points: Points, neighbours: float) -> Scored:
    """Score by D (eq. 4, k = 1) in a UMAP of the latents in the place of t-SNE."""
    return _mapped(points, _umap(points, int(neighbours))[0])


def umap_score(points: Points, neighbours: float) -> Scored:
    """Score by S (eq. 2) with D of that UMAP."""
    return _mapped(points, _joined(points.latents, *_umap(points, int(neighbours))))


def map_distance(points: Points, _: float) -> Scored:
    """Score by D in our frozen t-SNE map; undrawn, which ranks as the drawn one does."""
    return _mapped(points, _frozen(points.latents, points.latents.references)[0])


def map_score(points: Points, _: float) -> Scored:
    """Score as ecgwatch does: S of NSE and D, both scaled on held-out normal points, alpha 1/2."""
    return _mapped(points, _joined(points.latents, *_frozen(points.latents, points.latents.references)))


def full_score(points: Points, _: float) -> Scored:
    """Score as the release by beat does: every training point is a reference; minutes."""
    return _scored(points, _joined(points.latents, *_frozen(points.latents, points.latents.train)))


def _mapped(points: Points, scores: np.ndarray) -> Scored:
    count = len(points.latents.references)
    return _scored(points, scores, count, f"map of {count:,} references")


def _scored(points: Points, scores: np.ndarray, used: int | None = None, note: str = "") -> Scored:
    curves = {"beta-VAE": points.latents.losses}
    used = len(points.latents.train) if used is None else used
    return Scored(scores.astype(np.float64), used, curves, note, points.latents.cooldown)


def _joined(encoded: Encoded, d: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    nse_scale, d_scale = (calibrate.scale(one, encoded.log_terms) for one in (encoded.held_out_nse, held_out))
    return calibrate.ALPHA * scaled(encoded.test_nse, nse_scale) + (1 - calibrate.ALPHA) * scaled(d, d_scale)


def _frozen(encoded: Encoded, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frozen = reference_map.undrawn(references, encoded.perplexity, encoded.peers)
    return frozen.distance(encoded.test), frozen.distance(encoded.held_out)


@cache  # S and D ask for the same map
def _umap(points: Points, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """D of the test and of the held-out points, float64[.] each."""
    latents = points.latents
    among = map_ways.Points(latents.references, latents.held_out, latents.test, neighbours, points.seed)
    placed = map_ways.umap(among)
    return placed.test[:, 0], placed.scale[:, 0]
