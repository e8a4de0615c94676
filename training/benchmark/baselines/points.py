"""What every baseline sees and answers, and when a loss curve counts as converged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SAME = 0.01  # share by which the halves of the last half of a converged curve may differ: some 2 % over that half
LEAST_EPOCHS = 10


@dataclass(frozen=True)
class Encoded:
    """What a trained beta-VAE makes of the points: latent means float32[., d], NSE (eq. 3) float64[.].

    references: those training points that a map holds; perplexity, peers, log_terms: as its run has them; losses: of
    its training, one for each epoch, the last `cooldown` of them at a lower learning rate.
    """

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    references: np.ndarray
    held_out_nse: np.ndarray
    test_nse: np.ndarray
    perplexity: float = 30.0
    peers: int = 5
    log_terms: bool = True
    losses: Sequence[float] = ()
    cooldown: int = 0


@dataclass(frozen=True, eq=False)  # hashed as itself, for caches
class Points:
    """Normal training points, held-out normal ones (loss curves and scales alone) and test points, float32[., length].

    epochs: passes over the training points that a trained method may make, in each of its stages; encoded: only where
    a method asks for it.
    """

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    seed: int
    epochs: int
    encoded: Encoded | None = None

    @property
    def latents(self) -> Encoded:
        """Return what the beta-VAE made of the points."""
        assert self.encoded is not None, "a method that needs a run was given none"
        return self.encoded


@dataclass(frozen=True)
class Scored:
    """Anomaly scores of the test points, float64[m], higher is more abnormal.

    train_points: how many were fitted; curves: for each trained stage a loss on held-out points after every epoch;
    cooldown: how many of these, the last, had a lower learning rate.
    """

    scores: np.ndarray
    train_points: int
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""
    cooldown: int = 0

    @property
    def converged(self) -> bool:
        """Tell whether every stage did."""
        return all(converged(curve, self.cooldown) for curve in self.curves.values())


def converged(losses: Sequence[float], cooldown: int = 0) -> bool:
    """Tell whether the halves of the last half of a curve have means within 1 % of each other.

    cooldown: last epochs that are left out, because a lower learning rate makes a step of its own.
    """
    losses = losses[: len(losses) - cooldown]
    if len(losses) < LEAST_EPOCHS or not np.isfinite(losses).all():
        return False
    part = len(losses) // 4
    before, last = np.mean(losses[-2 * part : -part]), np.mean(losses[-part:])
    return bool(abs(last - before) <= SAME * abs(before))


def subsample(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return at most so many points, drawn without replacement, in order."""
    if len(points) <= count:
        return points
    return points[np.sort(np.random.default_rng(seed).choice(len(points), count, replace=False))]
