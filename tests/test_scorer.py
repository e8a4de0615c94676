"""Scores of the shipped bundle."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from ecgwatch import bundle as bundles
from ecgwatch import scorer as scorer_module
from ecgwatch.beats import Bedside
from ecgwatch.bundle import Bundle, Scale
from ecgwatch.errors import BundleError, ConfigError, MessageError, ScoringError
from ecgwatch.scorer import Model, Scored, Scorer, Scores, scaled, score_each, verify
from tests.integration.traffic import beat
from training.score_graph import encoder_of


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
    np.testing.assert_allclose(alone, together.score, rtol=1e-6, atol=1e-6)  # a score is 0 for a median beat
    np.testing.assert_allclose(backwards.score[::-1], together.score, rtol=1e-6, atol=1e-6)


def test_a_bundle_whose_inputs_this_version_makes_otherwise_is_refused_with_what_to_do(bundle: Bundle) -> None:
    older = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, contract=Bedside(after_s=0.4)))
    for use in (Scorer, verify):
        with pytest.raises(BundleError, match=r"takes 190 numbers .* makes 178 .*: train it again"):
            use(older)


def test_the_score_is_equation_2_of_the_scaled_terms(scorer: Scorer, bundle: Bundle, x: np.ndarray) -> None:
    scores, manifest = scorer.score(x), bundle.manifest
    expected = manifest.alpha * scaled(scores.nse, manifest.nse) + (1 - manifest.alpha) * scaled(
        scores.distance, manifest.distance
    )
    np.testing.assert_allclose(scores.score, expected, rtol=1e-5, atol=1e-5)


def test_the_distance_is_that_of_the_plain_map(scorer: Scorer, bundle: Bundle, x: np.ndarray) -> None:
    (latents,) = Model(bundle.model, "cpu", outputs=["mean"]).run(x)
    np.testing.assert_allclose(scorer.score(x).distance, bundle.map.distance(latents), rtol=2e-5)


def test_no_beats_give_no_scores(scorer: Scorer, x: np.ndarray) -> None:
    assert all(len(part) == 0 for part in scorer.score(x[:0]))


def test_scaling_puts_the_median_at_0_and_the_upper_quantile_at_1(bundle: Bundle) -> None:
    scale = bundle.manifest.nse
    np.testing.assert_allclose(scaled(np.array([scale.median, scale.upper]), scale), [0, 1])


def test_a_scale_of_logarithms_goes_by_factors_and_bears_zero() -> None:
    scale = Scale(0.02, 0.04, 0.3, log=True)
    np.testing.assert_allclose(scaled(np.array([0.02, 0.04, 0.08, 0.01]), scale), [0, 1, 2, -1])
    assert np.isfinite(scaled(np.zeros(1), scale)).all()


@pytest.mark.parametrize("log", [False, True])
def test_a_scaled_term_counts_as_no_more_than_its_most(log: bool) -> None:
    values = np.array([0.01, 0.02, 0.04, 0.08, 0.5])
    plain = scaled(values, Scale(0.02, 0.04, 0.3, log))
    limited = scaled(values, Scale(0.02, 0.04, 0.3, log, most=2.5))
    np.testing.assert_allclose(limited, np.minimum(plain, 2.5))
    assert plain[-1] > 2.5 > plain[-3]


def test_a_model_that_is_none_is_refused_in_one_line() -> None:
    with pytest.raises(BundleError) as refused:
        Model(b"no onnx")
    assert "\n" not in str(refused.value)


def test_a_model_without_a_map_is_no_bundles_model(bundle: Bundle) -> None:
    encoder = encoder_of(bundle.model)
    assert Model(encoder, "cpu").provider == "CPUExecutionProvider"
    with pytest.raises(BundleError, match=r"^model.onnx has no output distance, score; its outputs are mean, nse$"):
        Scorer(replace(bundle, model=encoder), "cpu")


def test_a_graph_that_has_another_map_than_the_bundle_is_found_out(bundle: Bundle) -> None:
    verify(bundle)
    moved = replace(bundle.map, latents=bundle.map.latents + np.float32(0.1))
    with pytest.raises(BundleError, match=r"^bundle [^ ]+: model.onnx and map.npz differ by "):
        verify(replace(bundle, map=moved))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_beat_that_is_no_number_gets_no_score_and_the_others_theirs(
    scorer: Scorer, x: np.ndarray, value: float
) -> None:
    broken = x[:3].copy()
    broken[1, 20] = value
    scores = scorer.score(broken)
    assert scores.finite.tolist() == [True, False, True]
    np.testing.assert_array_equal(scores.score[[0, 2]], scorer.score(x[:3]).score[[0, 2]])
    assert not scorer.score(broken[1:2]).finite.any()  # the model is whole


def test_a_model_that_gives_no_beat_a_number_is_broken(bundle: Bundle) -> None:
    model = onnx.load_model_from_string(bundle.model)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            nothing = np.full(tuple(weights.dims), np.nan, np.float32)
            weights.CopyFrom(onnx.numpy_helper.from_array(nothing, weights.name))
    with pytest.raises(ScoringError, match="no numbers"):
        Scorer(replace(bundle, model=model.SerializeToString()), "cpu")


def test_the_provider_named_is_the_one_that_runs(bundle: Bundle) -> None:
    assert Scorer(bundle, provider="cpu").provider == "CPUExecutionProvider"


def test_demanding_cuda_without_a_gpu_is_refused(bundle: Bundle) -> None:
    """The list of available providers names CUDA wherever onnxruntime-gpu is installed; it must not be believed."""
    if "CUDAExecutionProvider" in Scorer(bundle).provider:
        assert Scorer(bundle, provider="cuda").provider == "CUDAExecutionProvider"
        return
    with pytest.raises(ConfigError, match="provider = cuda"):
        Scorer(bundle, provider="cuda")


class Full:
    """A session on a GPU whose memory is taken: it starts, and fails at its first run (onnxruntime #9939)."""

    def __init__(self, model: bytes, options: onnxruntime.SessionOptions) -> None:
        self._session = SESSION(model, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run(self, *given: object) -> None:
        raise RuntimeException(OUT_OF_MEMORY)


SESSION = onnxruntime.InferenceSession
RuntimeException = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException
OUT_OF_MEMORY = "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 8388608"


def _refusing(model: bytes, options: onnxruntime.SessionOptions) -> None:
    raise RuntimeException(OUT_OF_MEMORY)


@pytest.fixture(params=[Full, _refusing], ids=["at the first run", "at the start"])
def failing_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that onnxruntime finds and cannot use; there is no such one to test with."""

    def session(model: bytes, options: onnxruntime.SessionOptions, providers: Sequence[object]) -> object:
        on_cpu = providers == ["CPUExecutionProvider"]
        return SESSION(model, options, providers=providers) if on_cpu else request.param(model, options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(scorer_module, "_has_cuda_driver", lambda: True)


@pytest.mark.usefixtures("failing_gpu")
def test_where_the_gpu_fails_auto_scores_on_the_cpu_and_says_so(
    bundle: Bundle, x: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    found = Scorer(bundle)
    assert found.provider == "CPUExecutionProvider"
    assert found.score(x).finite.all()
    (said,) = caplog.messages
    assert said.startswith("the GPU fails, beats are scored on the CPU: ")
    assert OUT_OF_MEMORY in said


@pytest.mark.usefixtures("failing_gpu")
def test_where_the_gpu_fails_cuda_is_no_damaged_bundle(bundle: Bundle) -> None:
    with pytest.raises(ScoringError, match="Failed to allocate memory"):
        Scorer(bundle, provider="cuda")


@pytest.mark.usefixtures("failing_gpu")
def test_a_damaged_model_is_one_on_a_machine_with_a_gpu_too() -> None:
    with pytest.raises(BundleError, match="onnxruntime refuses"):
        Model(b"no model")


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129])
def test_every_beat_of_a_batch_of_any_size_gets_its_score(scorer: Scorer, x: np.ndarray, count: int) -> None:
    np.testing.assert_allclose(scorer.score(x[:count]).score, scorer.score(x).score[:count], rtol=1e-6, atol=1e-6)


def test_a_beat_without_one_of_the_three_numbers_has_none() -> None:
    one, nothing = np.ones(4), np.eye(4)[:3]
    broken = Scores(*(np.where(row > 0, np.nan, one) for row in nothing))
    assert broken.finite.tolist() == [False, False, False, True]


def test_a_map_that_is_no_numbers_is_found_out(bundle: Bundle) -> None:
    broken = replace(bundle.map, latents=bundle.map.latents * np.float32(np.nan))
    with pytest.raises(BundleError, match="differ by nan"):
        verify(replace(bundle, map=broken))


def test_where_the_beats_cannot_be_cut_together_each_is_cut_alone_and_has_its_own_answer(scorer: Scorer) -> None:
    good, short = [replace(beat(n), patient="p") for n in range(3)], beat(3)
    short = replace(short, patient="p", samples=short.samples[: short.r_index + 5])
    odd = replace(beat(4), samples=None)  # what no decoder lets through
    found = score_each([good[0], short, odd, *good[1:]], scorer, {})
    assert [one.reason if isinstance(one, MessageError) else "" for one in found] == [
        "",
        "too-short",
        "internal",
        "",
        "",
    ]
    expected = score_each(good, scorer, {})
    scored = [one for one in found if isinstance(one, Scored)]
    np.testing.assert_allclose([one[:3] for one in scored], [one[:3] for one in expected], rtol=1e-5, atol=1e-5)
    assert [one.baseline for one in scored] == [one.baseline for one in expected]
