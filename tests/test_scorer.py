"""Scores of the shipped bundle."""

import numpy as np
import onnxruntime
import pytest

from ecgwatch import bundle as bundles
from ecgwatch.bundle import Bundle
from ecgwatch.errors import BundleError, ConfigError
from ecgwatch.scorer import Model, Scorer, scaled


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load("default")


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle, provider="cpu")


@pytest.fixture(scope="module")
def x(bundle: Bundle) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.random((300, bundle.manifest.contract.length)).astype(np.float32)
    return np.cumsum(rows - 0.5, axis=1, dtype=np.float32) / 10 + 0.5


def test_a_beat_scores_the_same_alone_in_a_batch_and_in_any_order(scorer: Scorer, x: np.ndarray) -> None:
    together, backwards = scorer.score(x), scorer.score(x[::-1])
    alone = np.array([scorer.score(x[i : i + 1]).score[0] for i in range(len(x))])
    np.testing.assert_allclose(alone, together.score, rtol=5e-5)
    np.testing.assert_allclose(backwards.score[::-1], together.score, rtol=5e-5)


def test_the_score_is_equation_2_of_the_scaled_terms(scorer: Scorer, bundle: Bundle, x: np.ndarray) -> None:
    scores, manifest = scorer.score(x), bundle.manifest
    expected = manifest.alpha * scaled(scores.nse, manifest.nse) + (1 - manifest.alpha) * scaled(
        scores.distance, manifest.distance
    )
    np.testing.assert_array_equal(scores.score, expected)


def test_no_beats_give_no_scores(scorer: Scorer, x: np.ndarray) -> None:
    assert all(len(part) == 0 for part in scorer.score(x[:0]))


def test_scaling_puts_the_median_at_0_and_the_upper_quantile_at_1(bundle: Bundle) -> None:
    scale = bundle.manifest.nse
    np.testing.assert_allclose(scaled(np.array([scale.median, scale.upper]), scale), [0, 1])


def test_a_model_that_is_none_is_refused_in_one_line() -> None:
    with pytest.raises(BundleError) as refused:
        Model(b"no onnx")
    assert "\n" not in str(refused.value)


def test_the_provider_named_is_the_one_that_runs(bundle: Bundle) -> None:
    assert Scorer(bundle, provider="cpu").provider == "CPUExecutionProvider"


def test_demanding_cuda_without_a_gpu_is_refused(bundle: Bundle) -> None:
    """The list of available providers names CUDA on any machine with onnxruntime-gpu; it must not be believed."""
    if "CUDAExecutionProvider" in Scorer(bundle).provider:
        assert Scorer(bundle, provider="cuda").provider == "CUDAExecutionProvider"
        return
    assert "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    with pytest.raises(ConfigError, match="provider = cuda"):
        Scorer(bundle, provider="cuda")
