"""A batch of beats -> scores; the only module that imports onnxruntime.

from ecgwatch import bundle, scorer
scores = scorer.Scorer(bundle.load("default")).score(x)     # x: float32[n, 187]; scores.score: float64[n]
"""

import ctypes
import sys
from typing import NamedTuple

import numpy as np
import onnxruntime

from ecgwatch.beats import Contract
from ecgwatch.bundle import Bundle, Scale
from ecgwatch.errors import BundleError, ConfigError, ScoringError

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_ORT = onnxruntime.capi.onnxruntime_pybind11_state
# onnxruntime's own errors have no common base below Exception
_ORT_ERRORS = (
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


class Model:
    """model.onnx in an onnxruntime session: prepared beats -> latent means and NSE. May be called from any thread."""

    def __init__(self, model: bytes, provider: str = "auto", threads: int = 1) -> None:
        """Start a session.

        provider: auto takes CUDA where it works, else the CPU; cuda demands it. threads: of one call on the CPU, 0 for
        all cores. Raises ConfigError when CUDA is demanded and absent, BundleError for a model that is refused.
        """
        self._session = _session(model, provider, threads)
        # what the session really uses: the list of available providers names CUDA even without a GPU
        self.provider: str = self._session.get_providers()[0]
        if provider == "cuda" and self.provider != _CUDA:
            raise ConfigError("[model] provider = cuda: onnxruntime found no usable CUDA GPU; use auto or cpu")

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return latent means float32[n, latent] and NSE float64[n] of prepared beats float32[n, length], n > 0.

        Raises ScoringError where onnxruntime fails.
        """
        try:
            latents, nse = self._session.run(None, {"x": np.ascontiguousarray(x, np.float32)})
        except _ORT_ERRORS as error:
            raise ScoringError(f"onnxruntime failed: {str(error).splitlines()[0]}") from None
        return latents, nse.astype(np.float64)


class Scorer:
    """A bundle ready to score: the model and the reference map. May be called from any thread."""

    def __init__(self, bundle: Bundle, provider: str = "auto", threads: int = 1) -> None:
        """Load the model; arguments and errors as for Model."""
        self.bundle = bundle
        self._model = Model(bundle.model, provider, threads)
        self.provider = self._model.provider
        self.score(
            np.full((1, self.contract.length), 0.5, np.float32)
        )  # the first call allocates; no beat waits for it

    @property
    def contract(self) -> Contract:
        """What the model's input is made of."""
        return self.bundle.manifest.contract

    def score(self, x: np.ndarray) -> Scores:
        """Score prepared beats, float32[n, length]; n may be 0.

        Raises ScoringError where onnxruntime fails or yields something that is no number.
        """
        if not len(x):
            return Scores(np.zeros(0), np.zeros(0), np.zeros(0))
        latents, nse = self._model.encode(x)
        distance = self.bundle.map.distance(latents)
        manifest = self.bundle.manifest
        combined = manifest.alpha * scaled(nse, manifest.nse) + (1 - manifest.alpha) * scaled(
            distance, manifest.distance
        )
        if not np.isfinite(combined).all():
            raise ScoringError("the model gave a score that is no number")
        return Scores(nse, distance, combined)


def scaled(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Scale a term by its quantiles on held-out normal beats: their median gives 0, their upper quartile 1."""
    return (values - scale.median) / (scale.upper - scale.median)


def _session(model: bytes, provider: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    cuda = provider != "cpu" and _CUDA in onnxruntime.get_available_providers() and _has_cuda_driver()
    try:
        if cuda:
            onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels, or from torch's
        return onnxruntime.InferenceSession(model, options, providers=[_CUDA, _CPU] if cuda else [_CPU])
    except _ORT_ERRORS as error:
        raise BundleError(f"onnxruntime refuses model.onnx: {str(error).splitlines()[0]}") from None


def _has_cuda_driver() -> bool:
    """Without the driver's library a try at CUDA could only print complaints."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
