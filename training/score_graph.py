"""Append the reference map to an exported encoder, so that one ONNX graph holds the whole score.

    x float32[n, length] -> mean float32[n, latent], nse, distance, score float32[n]

The definition, with its derivation, is `ecgwatch.tsne_map`; here it is in nodes that CPU and CUDA have.

A TopK over all references would cost more than all the rest: onnxruntime's heap is mended at each of hundreds of
insertions. So the search has two stages. References stand in chunks, neighbours together; the k nearest lie in those
chunks whose nearest member is nearest, and only the members of these are compared one by one. k chunks are always
enough; as neighbours share chunks far fewer are, and how many is measured on the references themselves (`_enough`). The
second TopK meets its values nearly in order, where its heap stays as it is. The distances of
the k that are found are then taken afresh, by differences: what |r|^2 - 2 x r loses in float32, and how that depends on
the size of the batch, touches the choice between references that are as good as equally far, and no value.

From there on it is float64: sums run in another order in another batch, and exponents of up to 50 would make of the
last digit of a float32 what a score shows. So a beat scores the same alone and among others, to 1e-6.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from ecgwatch.bundle import Scale
from ecgwatch.scorer import ENCODER, LEAST, linear
from ecgwatch.tsne_map import FIRST_GUESS, MAX_EXPONENT, MAX_STEP, MIN_MASS, MIN_VARIANCE, TINY, ReferenceMap

FAR_OUT = (1, 3, 10)
SAMPLED = 1000  # references whose neighbours are looked at, about
MARGIN = 1.3
_FAR = 1e30  # squared distance of a reference that only fills up a chunk
_PREFIX = "map/"


def append_map(encoder: bytes, reference_map: ReferenceMap, scales: tuple[Scale, Scale], alpha: float) -> bytes:
    """Return the encoder's graph with outputs `distance` and `score` added.

    encoder: ONNX, x -> mean, nse; scales: of NSE and of D.
    """
    model = onnx.load_from_string(encoder)
    nodes = _Nodes()
    precise = replace(nodes, floats=np.float64)
    squared = _nearest(nodes, precise, "mean", reference_map)
    distance = _radius(precise, squared, reference_map)
    _combine(nodes, distance, scales, alpha)
    model.graph.node.extend(nodes.made)
    model.graph.initializer.extend(nodes.constants)
    rows = [d.dim_param or d.dim_value for d in _output(model, "nse").type.tensor_type.shape.dim]
    for name in ("distance", "score"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, rows))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def encoder_of(whole: bytes) -> bytes:
    """Return the encoder that `append_map` was given: x -> mean, nse."""
    encoder = onnx.utils.Extractor(onnx.load_from_string(whole)).extract_model(["x"], list(ENCODER))
    encoder.graph.name = "encoder"  # the extractor's grows with every extraction
    return encoder.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class _Nodes:
    """Nodes and constants under way; calling it adds a node and returns the name of its output."""

    floats: type[np.floating] = np.float32  # what constants are
    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, op: str, *inputs: str | np.ndarray | float, output: str = "", **attributes: Any) -> str:
        return self.several(op, 1, *inputs, output=output, **attributes)[0]

    def several(
        self, op: str, count: int, *inputs: str | np.ndarray | float, output: str = "", **attributes: Any
    ) -> list[str]:
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        outputs = [output or f"{_PREFIX}{op}_{len(self.made)}_{i}" for i in range(count)]
        self.made.append(helper.make_node(op, names, outputs, f"{_PREFIX}{op}_{len(self.made)}", **attributes))
        return outputs

    def _constant(self, value: np.ndarray | float) -> str:
        name = f"{_PREFIX}constant_{len(self.constants)}"
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.floats)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _nearest(op: _Nodes, precise: _Nodes, latents: str, reference_map: ReferenceMap) -> str:
    """Squared distances to the nearest references, in no order: double[n, k, 1]."""
    k, latent = reference_map.neighbours, reference_map.latents.shape[1]
    chunks = _chunks(reference_map)
    count, size = chunks.shape
    taken = _enough(reference_map, chunks)
    references = np.where(chunks[..., None] < 0, np.float32(np.nan), reference_map.latents[chunks])
    # c the centre: a reference as (c - r, |r - c|^2 / 2) and a beat as (x - c, 1). Their products order references by
    # distance, their sum is x - r.
    away = reference_map.centre - references
    half = (np.nan_to_num(away, nan=math.sqrt(_FAR)) ** 2).sum(axis=-1, keepdims=True) / 2
    rows = np.concatenate([np.nan_to_num(away), half], axis=-1)
    beat = op("Gemm", latents, np.eye(latent, latent + 1), np.append(-reference_map.centre, 1))
    # Member by member, so that the least of a chunk is a minimum of long rows; in two halves, because onnxruntime
    # takes the minimum of a single block (one beat, undivided) without vector instructions.
    by_member = rows.reshape(2, count // 2, size, latent + 1).transpose(3, 0, 2, 1).reshape(latent + 1, -1)
    every = op("Reshape", op("MatMul", beat, np.ascontiguousarray(by_member)), _shape(-1, size, count // 2))
    least = op("Reshape", op("ReduceMin", every, _shape(1), keepdims=0), _shape(-1, count))
    _, chosen = op.several("TopK", 2, least, _shape(taken), largest=0, sorted=1)
    members = op("Reshape", op("Gather", rows, chosen), _shape(-1, taken * size, latent + 1))
    ranks = op("MatMul", members, op("Unsqueeze", beat, _shape(2)))
    _, found = op.several("TopK", 2, ranks, _shape(k), axis=1, largest=0, sorted=0)
    nearest = op("GatherND", members, found, batch_dims=1)
    difference = op("Cast", op("Add", nearest, op("Unsqueeze", beat, _shape(1))), to=TensorProto.DOUBLE)
    without_last = np.append(np.ones(latent), 0)[:, None]
    return precise("MatMul", precise("Mul", difference, difference), without_last)


def _radius(op: _Nodes, squared: str, reference_map: ReferenceMap) -> str:
    """D (`tsne_map.ReferenceMap.distance`): double[n, k, 1] -> float[n, 1, 1]."""
    nearest = op("ReduceMin", squared, _shape(1))
    minus_beyond = op("Sub", nearest, squared)
    unit = op("Sub", TINY, op("Mul", op("ReduceMean", minus_beyond, _shape(1)), math.exp(-FIRST_GUESS)))
    minus_t = op("Div", minus_beyond, unit)
    b = _precision(op, minus_t, math.log(reference_map.perplexity))
    references = op("ReduceSum", op("Exp", op("Mul", minus_t, b)), _shape(1))
    lead = op("Sub", nearest, reference_map.peer_distances.astype(float)[:, None] ** 2)
    exponents = op("Min", op("Mul", op("Div", b, unit), lead), MAX_EXPONENT)
    ratio = op("Min", op("Div", op("ReduceSum", op("Exp", exponents), _shape(1)), references), 1 / MIN_MASS - 1)
    distance = op("Sqrt", op("Mul", ratio, reference_map.perplexity / reference_map.mean_z))
    return op("Cast", distance, to=TensorProto.FLOAT)


def _precision(op: _Nodes, minus_t: str, wanted: float) -> str:
    """`tsne_map.precision` in units of its first guess: double[n, k, 1] -> [n, 1, 1]; moments are those of -t."""
    row = op("Reshape", minus_t, _shape(0, 1, -1))
    square = op("Mul", row, row)
    powers = op("Concat", row, square, op("Mul", square, row), axis=1)
    weights = op("Exp", minus_t)
    total = op("ReduceSum", weights, _shape(1))
    moments = op("Div", op("MatMul", powers, weights), total)
    first, second, third = op.several("Split", 3, moments, axis=1, num_outputs=3)
    variance = op("Max", op("Sub", second, op("Mul", first, first)), MIN_VARIANCE)
    twice = op("Add", variance, variance)
    skew = op("Sub", third, op("Mul", first, op("Add", second, twice)))
    excess = op("Sub", op("Sub", op("Log", total), first), wanted)
    bend = op("Mul", excess, op("Div", skew, twice))
    step = op("Div", excess, op("Max", op("Sum", variance, excess, bend), MIN_VARIANCE))
    return op("Exp", op("Clip", step, -MAX_STEP, MAX_STEP))


def _combine(op: _Nodes, distance: str, scales: tuple[Scale, Scale], alpha: float) -> None:
    """Name D, and add S (eq. 2): `scorer.scaled` of both terms, weighted."""
    op("Reshape", distance, _shape(-1), output="distance")
    parts, offset = [], 0.0
    for term, scale, weight in zip(("nse", "distance"), scales, (alpha, 1 - alpha), strict=True):
        median, upper = linear(scale)
        factor = weight / (upper - median)
        parts.append(op("Mul", _measured(op, term, scale), factor))
        offset -= factor * median
    op("Sum", *parts, offset, output="score")


def _measured(op: _Nodes, term: str, scale: Scale) -> str:
    return op("Log", op("Max", term, LEAST)) if scale.log else term


def _chunks(reference_map: ReferenceMap) -> np.ndarray:
    """Return the references in an even number of chunks, int[chunks, members]; -1 fills up the last.

    With about the square root of n / k members to a chunk, both stages compare about the same number of values.
    """
    n = len(reference_map.latents)
    size = max(1, round(math.sqrt(2 * n / reference_map.neighbours)))
    padded = np.full(-(-n // (2 * size)) * 2 * size, -1)
    padded[:n] = _neighbours_together(reference_map.latents, np.arange(n), size)
    return padded.reshape(-1, size)


def _enough(reference_map: ReferenceMap, chunks: np.ndarray) -> int:
    """How many of the nearest chunks are searched: MARGIN times what any reference's own neighbours lie in, k at most.

    Also those of a reference moved outward, FAR_OUT times as far from the centre: in few dimensions a far beat's
    nearest references lie along the rim, in more chunks than any reference's. Real beats near and far stay below it
    (tests); latents without any structure come to k.
    """
    k, latents = reference_map.neighbours, reference_map.latents
    chunk = np.empty(len(latents), int)
    chunk[chunks[chunks >= 0]] = np.nonzero(chunks >= 0)[0]
    most = 0
    sampled = latents[:: max(1, len(latents) // SAMPLED)].astype(np.float64)
    middle = reference_map.centre
    for x in np.concatenate([middle + times * (sampled - middle) for times in FAR_OUT]):
        nearest = np.argpartition(((latents - x) ** 2).sum(axis=1), k - 1)[:k]
        most = max(most, len(np.unique(chunk[nearest])))
    return min(k, len(chunks), math.ceil(MARGIN * most))


def _neighbours_together(points: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Order rows so that near ones follow each other: halve across the widest axis, down to the size of a chunk."""
    if len(rows) <= size:
        return rows
    part = points[rows]
    order = rows[np.argsort(part[:, np.ptp(part, axis=0).argmax()], kind="stable")]
    middle = max(size, len(rows) // 2 // size * size)  # whole chunks on the left
    return np.concatenate([_neighbours_together(points, half, size) for half in (order[:middle], order[middle:])])


def _shape(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.int64)


def _output(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(output for output in model.graph.output if output.name == name)
