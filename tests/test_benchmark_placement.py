"""Ways to place a point in a finished map, on made clusters: what each is known to do."""

import numpy as np
import pytest

from training.benchmark import lion, map_ways, neural_map, placement_tables
from training.benchmark.auroc import auroc
from training.benchmark.placement import Experiment, choose_test, experiments

CENTRES = np.array([[0.0, 0, 0, 0], [9, 0, 0, 0], [0, 9, 0, 0]])


def _cluster(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (CENTRES[rng.integers(3, size=n)] + rng.normal(size=(n, 4))).astype(np.float32)


@pytest.fixture(scope="module")
def points() -> map_ways.Points:
    """300 references in three clusters; 60 points like them and 20 far from all; 100 held out."""
    far = np.random.default_rng(9).normal(size=(20, 4)).astype(np.float32) + np.float32(5)
    return map_ways.Points(_cluster(300, 1), _cluster(100, 2), np.concatenate([_cluster(60, 3), far]), 15.0, 0)


ABNORMAL = np.r_[np.zeros(60, bool), np.ones(20, bool)]


@pytest.fixture(scope="module")
def placed(points: map_ways.Points) -> dict[str, map_ways.Placed]:
    """The quick ways; the joint map is the one that takes seconds."""
    return {name: map_ways.WAYS[name](points) for name in ("joint map", "LION-tSNE", *placement_tables.PLAIN)}


def test_points_far_from_all_references_are_placed_farther_than_others(placed: dict[str, map_ways.Placed]) -> None:
    for name, way in placed.items():
        assert way.test.shape == (80, 3) and way.scale.shape[1] == 3, name
        assert auroc(way.test[:, 0], ABNORMAL)[0] > 0.9, name
        assert (np.diff(way.test, axis=1) >= 0).all(), name  # the mean over more neighbours is no smaller


def test_a_network_that_learned_made_up_outliers_tells_others_apart(points: map_ways.Points) -> None:
    network = neural_map.fit(points.references, points.perplexity, points.seed, steps=300)
    places = neural_map.place(network, points.test)
    assert auroc(map_ways.distances(places, network.positions)[:, 0], ABNORMAL)[0] > 0.7
    np.testing.assert_allclose(neural_map.place(network, points.test[-1:])[0], places[-1], rtol=1e-4)


def test_the_drawn_distance_is_the_one_that_the_affinity_gives(
    points: map_ways.Points, placed: dict[str, map_ways.Placed]
) -> None:
    drawn = placed["virtual peers"].test[:, 0]
    np.testing.assert_allclose(drawn, points.frozen.distance(points.test), rtol=1e-4, atol=1e-4)


def test_permuting_the_map_changes_no_distance_to_the_nearest_reference(
    points: map_ways.Points, placed: dict[str, map_ways.Placed]
) -> None:
    """So what ranks beats is their affinity; the map gives the distance its unit, and the beat its place."""
    ours = placed["virtual peers"].test[:, 0]
    np.testing.assert_allclose(map_ways.permuted(points).test[:, 0], ours, rtol=1e-4, atol=1e-4)


def test_latent_neighbours_and_virtual_peers_place_a_point_alone_where_they_place_it_among_others(
    points: map_ways.Points, placed: dict[str, map_ways.Placed]
) -> None:
    few = map_ways.Points(points.references, points.held_out, points.test[-3:], points.perplexity, points.seed)
    for name in placement_tables.PLAIN:
        np.testing.assert_allclose(map_ways.WAYS[name](few).test, placed[name].test[-3:], rtol=1e-4, atol=1e-4)


def test_openTSNEs_transform_draws_outliers_into_clusters(points: map_ways.Points) -> None:
    """The trap that the virtual peers avoid; where this fails, openTSNE has changed and the page is out of date."""
    inward = map_ways.transform(points, 5).test[60:, 0]
    ours = map_ways.virtual_peers(points).test[60:, 0]
    assert np.median(inward) < np.median(ours) / 2


def test_lion_puts_an_outlier_on_a_free_place_and_another_reference_where_it_is(points: map_ways.Points) -> None:
    fitted = lion.fit(points.references, points.frozen.positions, 0)
    outlier = np.full((1, 4), 50, np.float32)
    assert (lion.place(fitted, outlier)[0] == fitted.free).all(axis=1).any()
    np.testing.assert_allclose(lion.place(fitted, points.references[:5]), points.frozen.positions[:5], atol=1e-3)


def test_the_made_up_outliers_of_the_network_lie_farther_than_references(points: map_ways.Points) -> None:
    made = neural_map.made_up(points.references, 200, 0)
    assert np.median(points.frozen.distance(made)) > 2 * np.median(points.frozen.distance(points.held_out))


def test_every_class_is_the_anomaly_once_and_only_ecg_has_three_seeds_of_normal_n() -> None:
    names = [one.name for one in experiments(["arrhythmia", "mnist"])]
    assert names[:4] == ["by-beat-0", "by-beat-1", "by-beat-2", "by-beat-anomaly-N-0"]
    assert len(names) == len(set(names)) == 3 + 5 + 10
    assert [one.title for one in experiments(["mnist"])][3] == "3 anomalous"


def test_all_abnormal_points_and_enough_normal_ones_are_tested() -> None:
    few, many = np.arange(9000) < 100, np.arange(9000) < 4000
    for abnormal, count in ((few, 5000), (many, 6500)):
        rows = choose_test(abnormal, 0)
        assert len(rows) == count and abnormal[rows].sum() == abnormal.sum()


def test_the_shortened_form_is_smaller_and_says_so_in_its_folders_name() -> None:
    (one, *classes) = experiments(["arrhythmia"], quick=True)
    assert one.name == "by-beat-0-quick" and len(classes) == 5
    rows = choose_test(np.arange(9000) < 4000, 0, one.size)
    assert (rows < 4000).sum() == one.size.most_abnormal and (rows >= 4000).sum() == one.size.least_normal
    assert len(set(rows.tolist())) == len(rows)


def test_the_tables_figures_are_those_of_the_saved_distances(placed: dict[str, map_ways.Placed]) -> None:
    rng = np.random.default_rng(4)
    nse, held_out = rng.random(80) + ABNORMAL, rng.random(100)
    saved = placement_tables.Saved(Experiment("arrhythmia", ("N",), 0), "1 + 0", nse, held_out, ABNORMAL, placed)
    rows, differences = placement_tables.compare(saved)
    row = next(row for row in rows if row.way == "virtual peers" and row.k == 1)
    ours = placed["virtual peers"]
    assert row.d == pytest.approx(auroc(ours.test[:, 0], ABNORMAL)[0])
    median, upper = np.quantile(held_out, (0.5, 0.75))
    d_median, d_upper = np.quantile(ours.scale[:, 0], (0.5, 0.75))
    s = (nse - median) / (upper - median) + (ours.test[:, 0] - d_median) / (d_upper - d_median)
    assert row.s == pytest.approx(auroc(s, ABNORMAL)[0])
    assert row.s_best is not None and row.s is not None and row.s_low is not None and row.s_high is not None
    assert row.s_low <= row.s <= row.s_high
    with_itself = [one for one in differences if one.way == one.against]
    assert not with_itself and {one.against for one in differences} == {"joint map", "latent neighbours"}
    assert all((one.low <= 0 <= one.high) == (one.verdict == "none") for one in differences)


def test_a_map_that_gives_half_of_the_normal_points_one_distance_has_no_fixed_score() -> None:
    assert np.isnan(placement_tables.scaled(np.array([1.0, 2.0]), np.zeros(10))).all()
