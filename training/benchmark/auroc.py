"""AUROC with paired bootstrap intervals, many samples at once."""

from collections.abc import Iterator, Sequence

import numpy as np

SAMPLES = 1000
_AT_ONCE = 50  # so that what is in memory stays small


def auroc(values: np.ndarray, abnormal: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return how often an abnormal point is above a normal one, ties half; float64[b], one for each row of weights.

    values: float[n]; abnormal: bool[n]; weights: how often each point was drawn, [b, n]; without, each once.
    """
    weights = np.ones((1, len(values))) if weights is None else weights
    normal, tested = np.flatnonzero(~abnormal), np.flatnonzero(abnormal)
    normal = normal[np.argsort(values[normal], kind="stable")]
    below, to = (np.searchsorted(values[normal], values[tested], side) for side in ("left", "right"))
    reached = np.zeros((len(weights), len(normal) + 1))
    np.cumsum(weights.take(normal, axis=1), axis=1, out=reached[:, 1:])
    beaten = (reached.take(below, axis=1) + reached.take(to, axis=1)) / 2
    drawn = weights.take(tested, axis=1)
    return (drawn * beaten).sum(axis=1) / (drawn.sum(axis=1) * reached[:, -1])


def draws(abnormal: np.ndarray, seed: int = 0, samples: int = SAMPLES) -> Iterator[np.ndarray]:
    """Yield bootstrap weights in blocks [b, n]: normal and abnormal points are drawn again within their own."""
    rng = np.random.default_rng(seed)
    for start in range(0, samples, _AT_ONCE):
        weights = np.zeros((min(_AT_ONCE, samples - start), len(abnormal)), np.int32)
        for mask in (abnormal, ~abnormal):
            count = int(mask.sum())
            weights[:, mask] = rng.multinomial(count, np.full(count, 1 / count), len(weights))
        yield weights


def bootstrap(values: Sequence[np.ndarray], abnormal: np.ndarray, samples: int = SAMPLES) -> np.ndarray:
    """Return AUROC of several scores of the same points in the same samples, float64[len(values), samples]."""
    return np.concatenate(
        [np.stack([auroc(one, abnormal, weights) for one in values]) for weights in draws(abnormal, 0, samples)], axis=1
    )


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of bootstrap samples (percentiles)."""
    low, high = np.percentile(samples, (2.5, 97.5))
    return float(low), float(high)
