"""torch -> ONNX, with the checks that torch, ONNX and numpy say the same of real inputs."""

import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import torch

from ecgwatch.bundle import Scale
from ecgwatch.errors import BundleError
from ecgwatch.scorer import TOLERANCE, difference
from ecgwatch.tsne_map import ReferenceMap
from training.models import BetaVAE, Serving

PARITY_INPUTS = 1000


def to_onnx(model: BetaVAE, length: int) -> bytes:
    """Export x float32[n, length] -> mean float32[n, latent], nse float32[n] as one graph, n free."""
    batch = torch.export.Dim("batch")
    # it would warn of each torchvision operator that is not installed, and none is used
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's own rewriting of an LSTM as a loop, on the way to ONNX's LSTM
        for text in ("_check_is_size will be removed", "The .grad attribute of a Tensor that is not a leaf"):
            warnings.filterwarnings("ignore", text)
        program = torch.onnx.export(
            Serving(model).eval(),
            (torch.rand(3, length),),
            input_names=["x"],
            output_names=["mean", "nse"],
            dynamic_shapes={"x": {0: batch}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch says None where it was asked to write a file
    exported = program.model_proto.SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(exported))
    return exported


def check_parity(model: BetaVAE, exported: bytes, x: np.ndarray) -> float:
    """Return the largest difference between torch and onnxruntime on real inputs, float32[n, length].

    Raises BundleError where it is above 1e-4.
    """
    with torch.no_grad():
        expected = [part.numpy() for part in Serving(model).eval()(torch.from_numpy(x))]
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = max(
        float(np.abs(there - here).max()) for there, here in zip(session.run(None, {"x": x}), expected, strict=True)
    )
    return _accepted("torch and onnxruntime", found, len(x))


def check_map(
    whole: bytes, reference_map: ReferenceMap, scales: tuple[Scale, Scale], alpha: float, x: np.ndarray
) -> float:
    """Return the largest difference between the whole graph and numpy on real inputs, float32[n, length].

    Raises BundleError where it is above 1e-4 (of the value, where that is above 1).
    """
    return _accepted("numpy and onnxruntime", difference(whole, reference_map, scales, alpha, x), len(x))


def _accepted(who: str, found: float, inputs: int) -> float:
    if not found <= TOLERANCE:
        raise BundleError(f"{who} differ by {found:.2g} on {inputs} inputs; at most {TOLERANCE:g} is accepted")
    return found
