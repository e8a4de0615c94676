"""A batch of beats (or images) -> scores; the only module that imports onnxruntime.

from ecgwatch import bundle, scorer
scores = scorer.Scorer(bundle.load("default")).score(x)     # x: float32[n, length]; scores.score: float64[n]
"""

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime

from ecgwatch import logs
from ecgwatch.beats import Bedside, Contract, ImageContract, Prepared
from ecgwatch.bundle import Bundle, Scale
from ecgwatch.errors import BundleError, ConfigError, EcgwatchError, MessageError, ScoringError, internal
from ecgwatch.messages import Beat, Known
from ecgwatch.patients import Patients, prepare
from ecgwatch.tsne_map import ReferenceMap

ENCODER = ("mean", "nse")  # what a graph gives without a map
WHOLE = (*ENCODER, "distance", "score")  # and with it
TOLERANCE = 1e-4  # between a graph and the plain version of it
LEAST = 1e-6  # of a term whose logarithm is taken: NSE and D of normal beats are thousands of times that
ROWS_AT_ONCE = 64  # so that what a part of the batch needs stays in the processor's cache, and memory small

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# products in TF32, its default, keep 10 bits: on an H100 scores then differ from the CPU's by up to .002 of themselves
_CUDA_OPTIONS = {"use_tf32": "0"}
_ORT = onnxruntime.capi.onnxruntime_pybind11_state
# onnxruntime's own errors have no common base below Exception
_ORT_ERRORS = (
    _ORT.EngineError,
    _ORT.EPFail,
    _ORT.Fail,
    _ORT.InvalidArgument,
    _ORT.InvalidGraph,
    _ORT.InvalidProtobuf,
    _ORT.NotImplemented,
    _ORT.RuntimeException,
)


class Scores(NamedTuple):
    """What the model says of n beats, float64[n] each: NSE (eq. 3), D (eq. 4), S (eq. 2, both terms scaled)."""

    nse: np.ndarray
    distance: np.ndarray
    score: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """bool[n]: the beats that got numbers."""
        return np.isfinite(self.nse) & np.isfinite(self.distance) & np.isfinite(self.score)


class Model:
    """model.onnx in an onnxruntime session: prepared beats -> its outputs. May be called from any thread."""

    def __init__(
        self, model: bytes, provider: str = "auto", threads: int = 1, outputs: Sequence[str] = ENCODER
    ) -> None:
        """Start a session.

        provider: auto takes CUDA where it works, else the CPU; cuda demands it. threads: of one call on the CPU, 0 for
        all cores. outputs: what `run` returns. Raises ConfigError when CUDA is demanded and absent, ScoringError where
        it is there and fails, BundleError for a model that is refused or lacks an output.
        """
        self._session = _session(model, provider, threads)
        self._outputs = list(outputs)
        there = [output.name for output in self._session.get_outputs()]
        if missing := [name for name in outputs if name not in there]:
            raise BundleError(f"model.onnx has no output {', '.join(missing)}; its outputs are {', '.join(there)}")
        self.inputs: list[int | str] = self._session.get_inputs()[0].shape[1:]  # of each beat: how many numbers
        # what the session really uses: the list of available providers names CUDA even without a GPU
        self.provider: str = self._session.get_providers()[0]
        if provider == "cuda" and self.provider != _CUDA:
            raise ConfigError("[model] provider = cuda: onnxruntime found no usable CUDA GPU; use auto or cpu")

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, float32[n, ...] each, of prepared beats float32[n, length], n > 0.

        Raises ScoringError where onnxruntime fails.
        """
        x = np.ascontiguousarray(x, np.float32)
        rows = len(x) if self.provider == _CUDA else ROWS_AT_ONCE
        try:
            if len(x) <= rows:
                return self._session.run(self._outputs, {"x": x})
            parts = [self._session.run(self._outputs, {"x": x[i : i + rows]}) for i in range(0, len(x), rows)]
        except _ORT_ERRORS as error:
            raise ScoringError(f"onnxruntime failed: {str(error).splitlines()[0]}") from None
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


class Scorer:
    """A bundle ready to score: one graph from beat to score. May be called from any thread."""

    def __init__(self, bundle: Bundle, provider: str = "auto", threads: int = 1) -> None:
        """Load the model; arguments and errors as for Model, BundleError also where it takes other inputs than ours."""
        self.bundle = bundle
        self._model = Model(bundle.model, provider, threads, Scores._fields)
        if self._model.inputs != [self.contract.length]:
            raise BundleError(
                f"bundle {bundle.manifest.name} takes {' x '.join(map(str, self._model.inputs))} numbers of each of "
                f"its {self.contract.inputs}, and this version of ecgwatch makes {self.contract.length} for its "
                "contract: train it again with this version"
            )
        self._plain = np.full((1, self.contract.length), 0.5, np.float32)
        try:
            self.score(self._plain)  # the first call allocates; no beat waits for it
        except ScoringError as error:
            if provider != "auto" or self._model.provider != _CUDA:
                raise
            _say_gpu_fails(str(error))
            self._model = Model(bundle.model, "cpu", threads, Scores._fields)
            self.score(self._plain)
        self.provider = self._model.provider

    @property
    def contract(self) -> Contract | Bedside | ImageContract:
        """What the model's input is made of."""
        return self.bundle.manifest.contract

    def score(self, x: np.ndarray) -> Scores:
        """Score prepared beats, float32[n, length]; n may be 0.

        A beat of absurd numbers may get none (`Scores.finite`). Raises ScoringError where onnxruntime fails, and where
        no beat gets any, not even a plain one: then it is the model.
        """
        if not len(x):
            return Scores(np.zeros(0), np.zeros(0), np.zeros(0))
        scores = self._scores(x)
        if not scores.finite.any() and not self._scores(self._plain).finite.all():
            raise ScoringError("the model gives scores that are no numbers")
        return scores

    def _scores(self, x: np.ndarray) -> Scores:
        return Scores(*(part.astype(np.float64) for part in self._model.run(x)))


class Scored(NamedTuple):
    """What the model says of one beat, and how far its patient's typical beat was known."""

    nse: float
    distance: float
    score: float
    baseline: Known | None


def score_each(beats: Sequence[Beat], scorer: Scorer, patients: Patients) -> list[Scored | MessageError]:
    """Score beats; in the place of one that cannot be scored stands the reason.

    patients: what is known of them; it grows with the beats. Raises ScoringError where the model fails.
    """
    prepared = _prepare(beats, scorer.contract, patients)
    scores = scorer.score(prepared.x)
    found: dict[int, Scored | MessageError] = {**prepared.refused}
    known = prepared.known or (None,) * len(prepared.kept)
    terms = zip(*(term.tolist() for term in scores), known, strict=True)
    for index, finite, one in zip(prepared.kept.tolist(), scores.finite.tolist(), terms, strict=True):
        found[index] = Scored(*one) if finite else MessageError("no-score", "the model gives no number")
    return [found[index] for index in range(len(beats))]


def _prepare(beats: Sequence[Beat], contract: Contract | Bedside | ImageContract, patients: Patients) -> Prepared:
    """As patients.prepare; a beat on which it fails in a way that nobody foresaw is refused alone."""
    try:
        return prepare(beats, contract, patients)
    except (EcgwatchError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one record must not end the worker, again after each restart
        logs.failed(error)
    rows = [np.zeros((0, contract.length), np.float32)]
    kept: list[int] = []
    known: list[Known] = []
    refused: dict[int, MessageError] = {}
    for index, beat in enumerate(beats):  # nothing was learned of them: that fails for each beat alone
        try:
            alone = prepare([beat], contract, patients)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            refused[index] = internal(error)
            continue
        if alone.refused:
            refused[index] = alone.refused[0]
            continue
        rows.append(alone.x)
        kept.append(index)
        known += alone.known
    return Prepared(np.concatenate(rows), np.array(kept, int), refused, tuple(known))


def difference(
    model: bytes, reference_map: ReferenceMap, scales: tuple[Scale, Scale], alpha: float, x: np.ndarray
) -> float:
    """Return the largest difference between a graph's distance and score and the plain numpy version of them.

    In units of what float32 rounds: the distance, and the terms of the score before their medians are taken off; or in
    units of 1, where these are less. scales: of NSE and D; x: float32[n, length].
    """
    mean, nse, distance, score = (part.astype(np.float64) for part in Model(model, "cpu", 1, WHOLE).run(x))
    plain = reference_map.distance(mean.astype(np.float32))
    terms = ((alpha, nse, scales[0]), (1 - alpha, plain, scales[1]))
    combined = sum(weight * scaled(values, scale) for weight, values, scale in terms)
    rounded = sum(
        weight * np.abs(measured(values, scale)) / (linear(scale)[1] - linear(scale)[0])
        for weight, values, scale in terms
    )
    return max(
        float((np.abs(there - here) / np.maximum(1, unit)).max())
        for there, here, unit in ((distance, plain, plain), (score, combined, rounded))
    )


def verify(bundle: Bundle) -> None:
    """Raise BundleError where a bundle's graph and its map disagree on beats made up for it."""
    Scorer(bundle, "cpu")  # refuses what cannot be scored at all
    manifest = bundle.manifest
    walks = np.random.default_rng(0).normal(size=(16, manifest.contract.length)).cumsum(axis=1)
    x = ((walks - walks.min()) / np.ptp(walks)).astype(np.float32)
    found = difference(bundle.model, bundle.map, (manifest.nse, manifest.distance), manifest.alpha, x)
    if not found <= TOLERANCE:
        raise BundleError(f"bundle {manifest.name}: model.onnx and map.npz differ by {found:.2g} in what they score")


def scaled(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Scale a term by its quantiles on held-out normal beats: their median gives 0, their upper quartile 1.

    Where the scale has a most, no more than that.
    """
    low, high = linear(scale)
    return (measured(values, scale) - low) / (high - low)


def linear(scale: Scale) -> tuple[float, float]:
    """Return the two quantiles on the axis that is scaled linearly: their logarithms where the scale has them."""
    return (math.log(scale.median), math.log(scale.upper)) if scale.log else (scale.median, scale.upper)


def measured(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Return a term on that axis, no farther out than counts."""
    there = np.log(np.maximum(values, LEAST)) if scale.log else values
    return there if scale.most is None else np.minimum(there, farthest(scale, scale.most))


def farthest(scale: Scale, most: float) -> float:
    """Return where a term, on that axis, is scaled to `most`."""
    low, high = linear(scale)
    return low + most * (high - low)


def _session(model: bytes, provider: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if provider != "cpu" and _CUDA in onnxruntime.get_available_providers() and _has_cuda_driver():
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels, or from torch's
        try:
            return onnxruntime.InferenceSession(model, options, providers=[(_CUDA, _CUDA_OPTIONS), _CPU])
        except _ORT_ERRORS as error:  # a GPU without free memory, perhaps; or the model, which the CPU tells
            reason = str(error).splitlines()[0]
    else:
        reason = None
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[_CPU])
    except _ORT_ERRORS as error:
        raise BundleError(f"onnxruntime refuses model.onnx: {str(error).splitlines()[0]}") from None
    if reason is not None:
        if provider == "cuda":
            raise ScoringError(f"[model] provider = cuda, and the GPU fails: {reason}")
        _say_gpu_fails(reason)
    return session


def _say_gpu_fails(reason: str) -> None:
    logs.log.warning("the GPU fails, beats are scored on the CPU: %s", reason)


def _has_cuda_driver() -> bool:
    """Without the driver's library a try at CUDA could only print complaints."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
