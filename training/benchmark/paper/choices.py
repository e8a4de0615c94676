"""Rows of AUROC -> one figure: which rows belong together, and the two ways of choosing alpha and beta.

"chosen": the alpha of the grid and the beta that are best for this class on the test points, as in the paper, with NSE
through a sampled z. "fixed": beta .01, both terms scaled on held-out normal points and joined with alpha a half, NSE
through the mean as served; no label is used here. Several seeds are averaged before anything is chosen.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.benchmark.paper.cells import BETAS, ENCODERS, JOINT
from training.benchmark.paper.results import PLAIN, SAMPLED, THROUGH_MEAN, Row
from training.benchmark.placement_tables import ALPHAS

FIXED_BETA = BETAS[0]
MAIN_NETWORKS = (ENCODERS[0], "table 3")


class Chosen(NamedTuple):
    """An AUROC and what was chosen for it."""

    auroc: float
    beta: float
    alpha: float


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows whose fields are as wanted."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def of_paper(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the paper's own setting: split by beat or image, TCN or table 3's network, all that trains."""
    return [
        row for row in rows if row.split in ("by-beat", "by-image") and row.network in MAIN_NETWORKS and row.share == 1
    ]


def over_beta(rows: Iterable[Row]) -> dict[float, np.ndarray]:
    """Return AUROC over alpha for each beta, mean over seeds; rows of one class, placing, k, distance and NSE."""
    found: dict[float, list[tuple[float, ...]]] = {}
    for row in rows:
        found.setdefault(row.beta, []).append(row.auroc)
    return {beta: np.mean(found[beta], axis=0) for beta in sorted(found)}


def best_of(rows: Iterable[Row], alphas: Sequence[float] = ALPHAS) -> Chosen | None:
    """Return the best of the grid; of equals the smallest beta, then the largest alpha (less of the map).

    A beta with fewer seeds than another is no candidate: one lucky seed would win over a mean.
    """
    seeds: dict[float, set[int]] = {}
    for row in (rows := list(rows)):
        seeds.setdefault(row.beta, set()).add(row.seed)
    most = max(map(len, seeds.values()), default=0)
    found = [
        Chosen(float(of_beta[ALPHAS.index(alpha)]), beta, alpha)
        for beta, of_beta in over_beta(rows).items()
        for alpha in alphas
        if len(seeds[beta]) == most
    ]
    return max(found, key=lambda one: (one.auroc, -one.beta, one.alpha), default=None)


def fixed(rows: Iterable[Row]) -> float | None:
    """Return S of beta .01 with alpha fixed, mean over seeds."""
    found = [row.fixed for row in rows if row.beta == FIXED_BETA and row.fixed is not None]
    return float(np.mean(found)) if found else None


def nse_fixed(rows: Iterable[Row]) -> float | None:
    """Return NSE alone, through the mean as served, of beta .01, mean over seeds."""
    found = over_beta(at(rows, JOINT, THROUGH_MEAN)).get(FIXED_BETA)
    return None if found is None else float(found[ALPHAS.index(1.0)])


def at(rows: Iterable[Row], placing: str, nse: str = SAMPLED, k: int = 1, distance: str = PLAIN) -> list[Row]:
    """Return the rows of one way to place points and to join the terms."""
    return select(rows, placing=placing, nse=nse, k=k, distance=distance)
