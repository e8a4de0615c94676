"""Append the reference map to an exported encoder, so that one ONNX graph holds the whole score.

    x float32[n, length] -> mean float32[n, latent], nse, distance, score float32[n]

The definition, with its derivation, is `ecgwatch.tsne_map`; here it is in nodes that CPU and CUDA have.

One product in float32 chooses the nearest reference of each group, and nothing else. From there on it is float64: sums
run in another order in another batch, and |r|^2 - 2 x r and exponents of up to 50 would make of the last digit of a
float32 what a score shows. So a beat scores the same alone and among others, to 1e-6.

At batch 1 a node costs about a microsecond whatever it does: few nodes are what is fast (docs/placement.md).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from ecgwatch.bundle import Scale
from ecgwatch.scorer import ENCODER, LEAST, farthest, linear
from ecgwatch.tsne_map import MIN_MASS, SPREAD, TINY, ReferenceMap

_PREFIX = "map/"


def append_map(encoder: bytes, reference_map: ReferenceMap, scales: tuple[Scale, Scale], alpha: float) -> bytes:
    """Return the encoder's graph with outputs `distance` and `score` added.

    encoder: ONNX, x -> mean, nse; scales: of NSE and of D.
    """
    model = onnx.load_from_string(encoder)
    nodes = _Nodes()
    precise = replace(nodes, floats=np.float64)  # the same lists: nodes go into one graph, constants are float64
    distance = _radius(precise, _nearest(nodes, precise, "mean", reference_map), reference_map)
    _combine(nodes, distance, scales, alpha)
    model.graph.node.extend(nodes.made)
    model.graph.initializer.extend(nodes.constants)
    rows = [d.dim_param or d.dim_value for d in _output(model, "nse").type.tensor_type.shape.dim]
    for name in ("distance", "score"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, rows))
    _drop_notes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _drop_notes(graph: onnx.GraphProto) -> None:
    """Drop what torch's exporter notes: files and lines of the machine, by which a bundle's hash would change."""
    graph.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("doc_string")
    for one in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del one.metadata_props[:]


def encoder_of(whole: bytes) -> bytes:
    """Return the encoder that `append_map` was given: x -> mean, nse."""
    model = onnx.load_from_string(whole)
    encoder = onnx.utils.Extractor(model).extract_model(["x"], list(ENCODER))
    encoder.graph.name = "encoder"  # the extractor's grows with every extraction
    encoder.producer_name, encoder.producer_version = model.producer_name, model.producer_version
    return encoder.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class _Nodes:
    """Nodes and constants under way; calling it adds a node and returns the name of its output."""

    floats: type[np.floating] = np.float32  # what constants are
    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, op: str, *inputs: str | np.ndarray | float, output: str = "", **attributes: Any) -> str:
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        node = f"{_PREFIX}{op}_{len(self.made)}"
        self.made.append(helper.make_node(op, names, [output or f"{node}_0"], node, **attributes))
        return self.made[-1].output[0]

    def _constant(self, value: np.ndarray | float) -> str:
        name = f"{_PREFIX}constant_{len(self.constants)}"
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.floats)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _nearest(op: _Nodes, precise: _Nodes, latents: str, reference_map: ReferenceMap) -> str:
    """|x - r|^2 of each group's nearest reference r: double[n, groups].

    c the centre: |r - c|^2 - 2 (x - c) (r - c) compares as |x - r|^2 does, and its first part is known beforehand. The
    groups are those of `tsne_map.ReferenceMap.nearest_of_groups`; here the members of one stand side by side.
    """
    groups, count = reference_map.groups, len(reference_map.latents)
    size = -(-count // groups)
    side_by_side = np.arange(groups * size).reshape(size, groups).T.reshape(-1)
    missing = side_by_side >= count  # some groups may have one member less: one that is never the nearest
    references = reference_map.latents[np.where(missing, 0, side_by_side)]
    away = references.astype(float) - reference_map.centre
    known = np.where(missing, np.inf, (away**2).sum(axis=1))

    centred = op("Sub", latents, reference_map.centre)
    compared = op("Gemm", centred, np.ascontiguousarray(-2 * away.T), known)
    member = op("ArgMin", op("Reshape", compared, _shape(-1, groups, size)), axis=2, keepdims=0)
    chosen = precise("Gather", references, op("Add", member, size * np.arange(groups)))
    beat = op("Unsqueeze", op("Cast", latents, to=TensorProto.DOUBLE), _shape(1))
    return op("ReduceSumSquare", op("Sub", chosen, beat), _shape(2), keepdims=0)


def _radius(op: _Nodes, squared: str, reference_map: ReferenceMap) -> str:
    """D (`tsne_map.ReferenceMap.distance`) from the neighbours' squared distances: float[n], named.

    The ratio of affinities is a difference of logarithms.
    """
    beyond = op("Sub", op("ReduceMean", squared, _shape(1)), op("ReduceMin", squared, _shape(1)))
    minus_b = op("Div", -SPREAD, op("Max", beyond, TINY))
    neighbours = op("ReduceLogSumExp", op("Mul", squared, minus_b), _shape(1), keepdims=0)
    squared_peers = reference_map.peer_distances.astype(float)[None] ** 2
    peers = op("ReduceLogSumExp", op("Mul", squared_peers, minus_b), _shape(1), keepdims=0)
    ratio = op("Exp", op("Min", op("Sub", peers, neighbours), math.log(1 / MIN_MASS - 1)))
    distance = op("Sqrt", op("Mul", ratio, reference_map.perplexity / reference_map.mean_z))
    return op("Cast", distance, to=TensorProto.FLOAT, output="distance")


def _combine(op: _Nodes, distance: str, scales: tuple[Scale, Scale], alpha: float) -> None:
    """Add S (eq. 2): `scorer.scaled` of both terms, weighted."""
    parts, offset = [], 0.0
    for term, scale, weight in zip(("nse", distance), scales, (alpha, 1 - alpha), strict=True):
        median, upper = linear(scale)
        factor = weight / (upper - median)
        parts.append(op("Mul", _measured(op, term, scale), factor))
        offset -= factor * median
    op("Add", op("Add", *parts), offset, output="score")


def _measured(op: _Nodes, term: str, scale: Scale) -> str:
    there = op("Log", op("Max", term, LEAST)) if scale.log else term
    return there if scale.most is None else op("Min", there, farthest(scale, scale.most))


def _shape(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.int64)


def _output(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(output for output in model.graph.output if output.name == name)
