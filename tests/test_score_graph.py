"""The map as part of an ONNX graph says what the plain numpy version says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside
from ecgwatch.bundle import Scale
from ecgwatch.errors import BundleError
from ecgwatch.scorer import WHOLE, Model, difference
from ecgwatch.tsne_map import MIN_MASS, ReferenceMap, radius
from training import export
from training.datasets import arrhythmia
from training.reference_map import peer_distances
from training.score_graph import append_map, encoder_of

RNG = np.random.default_rng(11)
SCALES = Scale(0.1, 0.3, 1.0), Scale(2.0, 3.0, 9.0)
ALPHA = 0.25


def made_map(references: int, latent: int = 5, perplexity: float = 10.0) -> ReferenceMap:
    """Two clusters, the second wider; the positions have no part in D."""
    latents = RNG.normal(size=(references, latent)).astype(np.float32)
    latents[::2] = 3 * latents[::2] + 10
    return ReferenceMap(latents, np.zeros((references, 2), np.float32), peer_distances(latents), perplexity, mean_z=2.5)


def identity(latent: int) -> bytes:
    """An encoder that takes latents for beats: mean is x, NSE its sum."""
    nodes = [
        helper.make_node("Identity", ["x"], ["mean"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["nse"], keepdims=0),
    ]
    rows = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "identity",
        [rows("x", TensorProto.FLOAT, ["batch", latent])],
        [rows("mean", TensorProto.FLOAT, ["batch", latent]), rows("nse", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10, producer_name="by hand", producer_version="1")
    return model.SerializeToString()


def graph_of(reference_map: ReferenceMap) -> bytes:
    return append_map(identity(reference_map.latents.shape[1]), reference_map, SCALES, ALPHA)


def beats_near_and_far(reference_map: ReferenceMap) -> np.ndarray:
    """References themselves, beats between and beside them, and outliers up to a million widths away."""
    latents = reference_map.latents
    chosen = latents[RNG.integers(0, len(latents), 120)]
    beside = [chosen + RNG.normal(size=chosen.shape) * width for width in (0.01, 0.3, 3, 30, 1e4, 1e6)]
    return np.concatenate([chosen, (chosen + chosen[::-1]) / 2, *beside]).astype(np.float32)


@pytest.mark.parametrize("references", [22, 30, 31, 150, 1000, 3001])
def test_graph_and_numpy_agree_on_beats_near_and_far(references: int) -> None:
    """Also fewer references than neighbours wanted."""
    made = made_map(references)
    assert difference(graph_of(made), made, SCALES, ALPHA, beats_near_and_far(made)) < 1e-6


def test_graph_and_numpy_agree_where_the_terms_logarithms_are_scaled() -> None:
    made, scales = made_map(800), (Scale(0.1, 0.3, 1.0, log=True), Scale(2.0, 3.0, 9.0, log=True))
    whole = append_map(identity(5), made, scales, ALPHA)
    assert difference(whole, made, scales, ALPHA, beats_near_and_far(made)) < 1e-6
    linear = append_map(identity(5), made, SCALES, ALPHA)
    assert difference(linear, made, scales, ALPHA, beats_near_and_far(made)) > 1  # and it would tell


@pytest.mark.parametrize("log", [False, True])
def test_graph_and_numpy_agree_where_a_scaled_term_has_a_most(log: bool) -> None:
    made, scales = made_map(800), (SCALES[0], Scale(2.0, 3.0, 9.0, log, most=0.5))
    beats = beats_near_and_far(made)
    assert difference(append_map(identity(5), made, scales, ALPHA), made, scales, ALPHA, beats) < 1e-6
    without = append_map(identity(5), made, (SCALES[0], Scale(2.0, 3.0, 9.0, log)), ALPHA)
    assert difference(without, made, scales, ALPHA, beats) > 0.01  # and it would tell


@pytest.mark.parametrize("latent", [1, 2, 24])
def test_graph_and_numpy_agree_for_latents_of_any_size(latent: int) -> None:
    made = made_map(800, latent)
    assert difference(graph_of(made), made, SCALES, ALPHA, beats_near_and_far(made)) < 1e-6


@pytest.fixture(scope="module")
def real_latents(mitdb: Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents of 17 records' beats under the default encoder, and which are normal ones of the first 13."""
    contract = bundles.load("default").manifest.contract
    assert isinstance(contract, Bedside)
    mapped = ("100", "101", "103", "105", "106", "112", "113", "115", "116", "117", "118", "121", "122")
    beats = arrhythmia.load(mitdb, contract, ["N"], (*mapped, "203", "208", "210", "233"))
    latents = Model(bundles.load("default").model, "cpu", 0).run(beats.x)[0]
    return latents, (beats.classes == "N") & np.isin(beats.records, mapped)


@pytest.mark.data
@pytest.mark.parametrize(("references", "tolerance"), [(500, 1e-6), (5000, 1e-4), (20_000, 1e-3)])
def test_graph_and_numpy_agree_on_10000_real_beats_and_on_some_far_out(
    real_latents: tuple[np.ndarray, np.ndarray], references: int, tolerance: float
) -> None:
    """A quarter of the beats is of records that have no part in the map.

    Thousands of references lie closer together than products in float32 tell. On one processor both ways choose the
    same of a group all the same (6e-8); one that sums in another order may not.
    """
    latents, normal = real_latents
    chosen = latents[np.random.default_rng(0).permutation(np.flatnonzero(normal))[:references]]
    asked = latents[np.random.default_rng(1).permutation(len(latents))[:10_000]]
    assert (len(chosen), len(asked)) == (references, 10_000)
    made = ReferenceMap(chosen, np.zeros((references, 2), np.float32), peer_distances(chosen), 30.0, 5.0)
    middle = latents.mean(axis=0)
    far = [((asked[:1000] - middle) * times + middle).astype(np.float32) for times in (3, 10)]
    whole = append_map(identity(latents.shape[1]), made, SCALES, ALPHA)
    assert difference(whole, made, SCALES, ALPHA, np.concatenate([asked, *far])) < tolerance


def test_the_farthest_beat_lies_where_the_least_mass_puts_it() -> None:
    made = made_map(500)
    *_, distance, _ = Model(graph_of(made), "cpu", outputs=WHOLE).run(np.full((1, 5), 1e5, np.float32))
    assert distance[0] == pytest.approx(radius(np.array([1 / MIN_MASS - 1]), 10.0, 2.5)[0], rel=1e-6)


def test_references_that_are_all_one_place_do_not_divide_by_zero() -> None:
    made = ReferenceMap(
        np.ones((100, 3), np.float32), np.zeros((100, 2), np.float32), np.ones(20, np.float32), 10.0, 2.5
    )
    outputs = Model(graph_of(made), "cpu", outputs=WHOLE).run(np.array([[1, 1, 1], [1, 1, 2]], np.float32))
    assert all(np.isfinite(output).all() for output in outputs)


def test_distances_do_not_depend_on_batch_mates_or_order() -> None:
    made = made_map(2000)
    model, x = Model(graph_of(made), "cpu", outputs=["distance"]), beats_near_and_far(made)
    (together,), (backwards,) = model.run(x), model.run(x[::-1])
    alone = np.concatenate([model.run(x[i : i + 1])[0] for i in range(len(x))])
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    np.testing.assert_allclose(backwards[::-1], together, rtol=1e-6)


def test_after_a_million_scorings_map_and_scores_are_the_same_to_the_bit() -> None:
    made = made_map(150, latent=2)
    before = [made.latents.tobytes(), made.positions.tobytes(), made.peer_distances.tobytes()]
    model, x = Model(graph_of(made), "cpu", threads=0, outputs=WHOLE), beats_near_and_far(made)
    first = [output.tobytes() for output in model.run(x)]
    many = RNG.normal(scale=20, size=(100_000, 2)).astype(np.float32)
    for _ in range(10):
        model.run(many)
    assert [output.tobytes() for output in model.run(x)] == first
    assert [made.latents.tobytes(), made.positions.tobytes(), made.peer_distances.tobytes()] == before
    again = Model(graph_of(made), "cpu", outputs=WHOLE)  # a restart
    assert [output.tobytes() for output in again.run(x)] == first


def test_the_encoders_outputs_stay_as_they_were() -> None:
    made = made_map(200)
    x = beats_near_and_far(made)
    bare, whole = Model(identity(5), "cpu").run(x), Model(graph_of(made), "cpu").run(x)
    assert all(np.array_equal(one, two) for one, two in zip(bare, whole, strict=True))
    assert [output.name for output in onnx.load_from_string(graph_of(made)).graph.output] == list(WHOLE)


def test_the_encoder_is_had_back_from_the_whole_graph() -> None:
    bare, back = onnx.load_from_string(identity(5)), onnx.load_from_string(encoder_of(graph_of(made_map(200))))
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in bare.graph.node]
    assert [output.name for output in back.graph.output] == [output.name for output in bare.graph.output]
    assert (back.producer_name, back.producer_version) == ("by hand", "1")


def test_the_graph_holds_nothing_of_the_machine_that_made_it() -> None:
    noted = onnx.load_from_string(identity(5))
    for one in (noted.graph, noted.graph.node[0], noted.graph.input[0]):
        one.metadata_props.add(key="stack_trace", value="/somewhere/models.py, line 7")
    made = made_map(200)
    assert append_map(noted.SerializeToString(), made, SCALES, ALPHA) == graph_of(made)
    assert b".py" not in bundles.load("default").model


def test_a_map_that_is_made_again_gives_the_same_graph_to_the_byte() -> None:
    made = made_map(200)
    once = encoder_of(graph_of(made))
    again = encoder_of(append_map(once, made, SCALES, ALPHA))
    assert again == once


def test_the_same_map_makes_the_same_graph() -> None:
    made = made_map(300)
    assert graph_of(made) == graph_of(made)


def test_a_graph_of_another_map_does_not_pass_export() -> None:
    made = made_map(300)
    with pytest.raises(BundleError, match=r"^numpy and onnxruntime differ by .* on 960 inputs; at most 0.0001"):
        export.check_map(graph_of(made_map(300)), made, SCALES, ALPHA, beats_near_and_far(made))
