"""Placing one beat in the frozen map."""

import numpy as np
import pytest

from ecgwatch.tsne_map import MIN_MASS, PEERS, ReferenceMap, mass_ratio, mean_z, outward, precision, radius
from training.reference_map import choose, fit, peer_distances

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def the_map() -> ReferenceMap:
    """Three clusters of 200 beats in ten dimensions."""
    centres = np.zeros((3, 10), np.float32)
    centres[[0, 1, 2], [0, 1, 2]] = 8
    latents = np.concatenate([c + RNG.normal(size=(200, 10)) for c in centres]).astype(np.float32)
    return fit(latents, perplexity=20, seed=0)


def _nearest_reference(the_map: ReferenceMap, places: np.ndarray) -> np.ndarray:
    return np.sqrt(((places[:, None, :] - the_map.positions[None]) ** 2).sum(axis=2)).min(axis=1)


def test_outliers_lie_farther_than_normal_beats(the_map: ReferenceMap) -> None:
    normal = the_map.latents[::10] + RNG.normal(scale=0.1, size=(60, 10)).astype(np.float32)
    outliers = RNG.normal(scale=8, size=(60, 10)).astype(np.float32)
    assert the_map.distance(outliers).min() > np.median(the_map.distance(normal))
    assert np.median(the_map.distance(outliers)) > 10 * np.median(the_map.distance(normal))


def test_going_away_from_a_cluster_never_brings_a_beat_nearer(the_map: ReferenceMap) -> None:
    away = the_map.latents[0] + np.linspace(0, 30, 40, dtype=np.float32)[:, None] * np.eye(10, dtype=np.float32)[5]
    distances = the_map.distance(away)
    assert (np.diff(distances[3:]) >= 0).all()
    assert distances[-1] > 100


def test_the_distance_is_equation_4_of_the_drawn_place(the_map: ReferenceMap) -> None:
    latents = RNG.normal(scale=4, size=(50, 10)).astype(np.float32)
    measured = _nearest_reference(the_map, the_map.place(latents))
    np.testing.assert_allclose(measured, the_map.distance(latents), rtol=1e-3, atol=1e-3)


def test_a_beat_alone_scores_as_in_a_batch(the_map: ReferenceMap) -> None:
    latents = RNG.normal(scale=3, size=(100, 10)).astype(np.float32)
    together = the_map.distance(latents)
    alone = np.array([the_map.distance(latents[i : i + 1])[0] for i in range(100)])
    np.testing.assert_allclose(alone, together, rtol=1e-5)
    np.testing.assert_allclose(the_map.distance(latents[::-1])[::-1], together, rtol=1e-5)


def test_scoring_leaves_the_map_as_it_was(the_map: ReferenceMap) -> None:
    before = the_map.positions.copy(), the_map.latents.copy()
    the_map.distance(RNG.normal(size=(5000, 10)).astype(np.float32))
    assert np.array_equal(before[0], the_map.positions) and np.array_equal(before[1], the_map.latents)


@pytest.mark.parametrize("references", [7, 10, 23, 30])
def test_the_neighbours_are_the_nearest_of_each_group(references: int) -> None:
    """Groups of one, of equal and of unequal size, dealt in turn."""
    latents = RNG.normal(size=(references, 3)).astype(np.float32)
    made = ReferenceMap(latents, latents[:, :2], np.ones(1, np.float32), 10 / 3, 1.0)
    assert made.groups == min(references, 10)
    asked = RNG.normal(size=(40, 3)).astype(np.float32)
    expected = [
        [
            min(((x - latents[j].astype(float)) ** 2).sum() for j in range(group, references, 10))
            for group in range(made.groups)
        ]
        for x in asked.astype(float)
    ]
    np.testing.assert_allclose(made.nearest_of_groups(asked), expected, rtol=1e-12)


def test_the_ratio_is_the_affinity_of_the_peers_over_that_of_the_references() -> None:
    squared = RNG.gamma(5, size=(40, 90)) * np.logspace(-3, 4, 40)[:, None]
    peers = np.full(10, 1.0)
    for row, ratio in zip(squared, mass_ratio(squared, peers), strict=True):
        b = precision((row - row.min())[None])[0]
        references = np.exp(-b * (row - row.min())).sum()
        against = np.exp(np.minimum(b * (row.min() - peers), 50)).sum()
        assert ratio == pytest.approx(min(against / references, 1 / MIN_MASS - 1), rel=1e-6)


@pytest.mark.parametrize("dimensions", [2, 5, 10, 20])
@pytest.mark.parametrize("away", [0, 3])
def test_the_precision_has_about_the_perplexity_asked_for(dimensions: int, away: float) -> None:
    """Also where the beat stands at the rim of the references, and in any unit."""
    references = RNG.normal(size=(3060, dimensions))
    beats = RNG.normal(size=(100, dimensions)) + away / np.sqrt(dimensions)
    squared = ((beats[:, None] - references) ** 2).sum(axis=2).reshape(100, -1, 90).min(axis=1)
    t = (squared - squared.min(axis=1, keepdims=True)) * np.logspace(-3, 4, 100)[:, None]
    p = np.exp(-precision(t)[:, None] * t)
    p /= p.sum(axis=1, keepdims=True)
    perplexity = np.exp(-(p * np.log(p)).sum(axis=1))
    low, middle, high = np.quantile(perplexity, (0.05, 0.5, 0.95))
    assert low > 24
    if dimensions > 2:
        assert 28 < middle < 33 and high < 38
    else:  # the groups' nearest reach farther in two dimensions; latents have more
        assert 28 < middle < 40 and high < 44


def test_a_beat_equal_to_many_references_does_not_divide_by_zero() -> None:
    assert 0 <= mass_ratio(np.zeros((1, 90)), np.full(10, 1.0))[0] < 0.01


def test_far_away_attraction_and_repulsion_balance_at_the_radius() -> None:
    """Attraction m w r against repulsion n w^2 r / Zbar, w = 1 / (1 + r^2)."""
    m, n, z = 1e-5, 30.0, 12.0
    r = radius(np.array([1 / m - 1]), n, z)[0]
    w = 1 / (1 + r * r)
    assert m * w * r == pytest.approx(n * w * w * r / z, rel=1e-3)


def test_a_beat_of_full_mass_lies_at_its_neighbours_and_less_mass_is_always_farther() -> None:
    masses = np.linspace(1, 0.01, 50)
    radii = radius(1 / masses - 1, 30.0, 200.0)
    assert radii[0] == 0
    assert (np.diff(radii) > 0).all()


def test_mean_z_is_the_sum_of_student_kernels_over_the_others() -> None:
    positions = np.array([[0.0, 0], [1, 0], [0, 2]])
    assert mean_z(positions) == pytest.approx(2 * (1 / 2 + 1 / 5 + 1 / 6) / 3)


def test_outward_walks_past_every_reference_in_its_way() -> None:
    positions = np.array([[1.0, 0], [3.0, 0.5], [4.5, 0], [30.0, 0]])
    place = outward(positions, np.zeros(2), 0, 2.0)
    assert place[1] == 0 and place[0] == pytest.approx(6.5)


def test_the_map_of_the_same_latents_and_seed_is_the_same(the_map: ReferenceMap) -> None:
    again = fit(the_map.latents, perplexity=20, seed=0)
    assert np.array_equal(again.positions, the_map.positions)


def test_peer_distances_are_the_median_neighbour_distances() -> None:
    rng = np.random.default_rng(0)  # of its own: which tests ran before must not decide
    latents = rng.normal(size=(120, 4)).astype(np.float32)
    full = np.sqrt(((latents[:, None].astype(float) - latents[None]) ** 2).sum(axis=2))
    expected = np.median(np.sort(full, axis=1)[:, 1 : PEERS + 1], axis=0)
    np.testing.assert_allclose(peer_distances(latents), expected, rtol=1e-4)


def test_references_are_shared_evenly_among_patients() -> None:
    groups = np.array(["a"] * 1000 + ["b"] * 50 + ["c"] * 20)
    chosen = choose(groups, 120, seed=0)
    assert len(set(chosen.tolist())) == 120
    counts = {name: int((groups[chosen] == name).sum()) for name in "abc"}
    assert counts["c"] == 20 and counts["b"] == 50 and counts["a"] == 50
