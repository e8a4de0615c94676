"""AUROC with bootstrap intervals, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.benchmark.auroc import auroc, bootstrap, draws, interval


def _points(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    abnormal = rng.random(n) < 0.3
    return np.round(rng.normal(size=n) + abnormal, 1), abnormal  # rounded: with ties


def test_it_is_scikit_learns_with_ties() -> None:
    values, abnormal = _points()
    assert auroc(values, abnormal)[0] == pytest.approx(roc_auc_score(abnormal, values))


def test_weights_count_as_repeated_points() -> None:
    values, abnormal = _points(60)
    weights = next(draws(abnormal, samples=3))
    for row, found in zip(weights, auroc(values, abnormal, weights), strict=True):
        again = np.repeat(np.arange(60), row)
        assert found == pytest.approx(roc_auc_score(abnormal[again], values[again]))


def test_a_sample_draws_as_many_normal_and_abnormal_points_as_there_are() -> None:
    abnormal = _points()[1]
    for weights in draws(abnormal, samples=70):
        assert (weights[:, abnormal].sum(axis=1) == abnormal.sum()).all()
        assert (weights.sum(axis=1) == len(abnormal)).all()


def test_a_score_compared_with_itself_never_differs_and_with_noise_it_does() -> None:
    values, abnormal = _points()
    noisy = values + np.random.default_rng(2).normal(size=len(values)) * 5
    same, other, worse = bootstrap([values, values, noisy], abnormal, samples=200)
    assert (same == other).all()
    low, high = interval(same - worse)
    assert 0 < low < high


def test_the_interval_holds_95_of_100_samples() -> None:
    assert interval(np.arange(1001.0)) == (25, 975)
