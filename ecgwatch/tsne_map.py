"""The reference map: how far one new beat lies from the normal beats of a frozen t-SNE map (eq. 4), for one beat alone.

The paper embeds test beats together with the training beats (algorithm 1). A daemon sees one beat, and the usual way to
add a point to a finished map (openTSNE's `transform`) draws every outlier into its nearest cluster: the affinities of a
point are normalised to 1 however far its neighbours are. The repair used here, in the notation of appendix C:

1. Affinity mass. Where t-SNE takes a point's 3 n nearest, n the perplexity, the references are dealt into 3 n groups
   once and for all, and a new beat x has the nearest of each group for its neighbours x_j: most of its nearest ones are
   among them, and nothing must be sorted, which would cost more than all the rest. As in t-SNE its precision b is the
   one at which its affinities have the perplexity n; here in closed form (`precision`), which has n to within two
   fifths. At this precision it also meets v virtual peers, which stand at the distances at which a reference beat
   typically has its 1st, ... v-th neighbour (medians d_1 ... d_v):
       p_j ~ exp(-b |x - x_j|^2) over neighbours,   p_u ~ exp(-b d_u^2) over peers,   sum of all p = 1.
   The neighbours' share m = sum_j p_j is near 1 for a beat as close to normal beats as they are to each other, and
   goes to 0 for an outlier. It is the mass that t-SNE's normalisation per point throws away.
2. Position. In the frozen map the point is attracted with m w and repelled with the sum of w^2 / Zbar over its
   neighbours, w = 1 / (1 + r^2), Zbar the mean over references of sum_j 1 / (1 + |y_i - y_j|^2). From far away its n
   neighbours are one place, and both balance where w = m Zbar / n: r^2 is about n / (m Zbar). A reference itself
   (m = 1) is at rest where it is, r = 0. Both hold for
       r^2 = (n / Zbar) (1 / m - 1),
   which falls strictly with m, so that no two beats are tied that their masses tell apart. 1 / m - 1 is the affinity of
   the peers over that of the neighbours: it is taken so, and loses no digits where m is near 1.
3. D. The beat is drawn outward from its neighbours, from the middle of the map, at the first place whose nearest
   reference is r away. So D (eq. 4, k = 1) of the drawn position is r, and r needs no drawing.

This is the plain version: it draws pictures, and tests and export compare with it. In service the same is part of
model.onnx (`training/score_graph.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

GROUPS_PER_PERPLEXITY = 3  # as many neighbours as openTSNE and Barnes-Hut t-SNE take: beyond them affinities vanish
PEERS = 20  # the default; how it was chosen stands in training/parameters.py
MIN_MASS = 1e-6  # an outlier beyond it is drawn no farther: over ten times the map's width
ROWS_AT_ONCE = 32  # so that the distances of a part of the batch stay in the processor's cache
SPREAD = 4.0  # b times the mean of what is beyond the nearest; where it comes from: `precision`
MAX_EXPONENT = 50.0  # where the mass is at its floor anyway
TINY = 1e-30  # against division by zero where all neighbours are equally far


@dataclass(frozen=True)
class ReferenceMap:
    """A frozen t-SNE map of normal beats.

    latents: float32[n, d] latent means; positions: float32[n, 2], their places in the map; peer_distances: float32[v],
    typical distances of a reference to its 1st, ... v-th neighbour; perplexity; mean_z: Zbar above.
    """

    latents: np.ndarray
    positions: np.ndarray
    peer_distances: np.ndarray
    perplexity: float
    mean_z: float

    @cached_property
    def centre(self) -> np.ndarray:
        """Mean latent; subtracted before squaring, which keeps float32 precise."""
        return self.latents.mean(axis=0)

    @cached_property
    def _centred(self) -> np.ndarray:
        return self.latents.astype(np.float64) - self.centre

    @cached_property
    def _search(self) -> np.ndarray:
        """float32[d + 1, n], laid out once: one product with (x, 1) gives |x - x_j|^2 - |x|^2."""
        return np.vstack([-2 * self._centred.T, (self._centred**2).sum(axis=1)]).astype(np.float32)

    @property
    def groups(self) -> int:
        """How many groups the references are dealt into, in turn: reference j is in group j modulo groups."""
        return min(len(self.latents), round(GROUPS_PER_PERPLEXITY * self.perplexity))

    def nearest(self, latents: np.ndarray, count: int) -> np.ndarray:
        """Return squared distances to the `count` nearest references, in no order, float64[m, count]."""
        return self._distances(latents, lambda compared: compared.argpartition(count - 1, axis=1)[:, :count])

    def nearest_of_groups(self, latents: np.ndarray) -> np.ndarray:
        """Return squared distances to the nearest reference of each group, float64[m, groups]."""
        groups = self.groups
        missing = -len(self.latents) % groups  # the last groups may have one less

        def of_each(compared: np.ndarray) -> np.ndarray:
            full = np.pad(compared, ((0, 0), (0, missing)), constant_values=np.inf)
            return full.reshape(len(full), -1, groups).argmin(axis=1) * groups + np.arange(groups)

        return self._distances(latents, of_each)

    def _distances(self, latents: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Squared distances to chosen references: one product compares, what it chooses is taken afresh, in float64."""
        rows = np.ones((len(latents), latents.shape[1] + 1), np.float32)
        np.subtract(latents, self.centre, out=rows[:, :-1])
        parts = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            chosen = self.latents[choose(rows[part] @ self._search)]
            parts.append(((latents[part, None].astype(np.float64) - chosen) ** 2).sum(axis=2))
        return np.concatenate(parts) if parts else np.empty((0, 1))

    def distance(self, latents: np.ndarray) -> np.ndarray:
        """Return D (eq. 4, k = 1), the map distance to the nearest normal beat: latents float32[m, d] -> float64[m]."""
        ratio = mass_ratio(self.nearest_of_groups(latents), self.peer_distances.astype(np.float64) ** 2)
        return radius(ratio, self.perplexity, self.mean_z)

    def place(self, latents: np.ndarray) -> np.ndarray:
        """Return where the beats are drawn, float64[m, 2]: outward from the nearest reference, `distance` from any."""
        middle = self.positions.mean(axis=0)
        centred = latents - self.centre
        rows = np.concatenate([centred, np.ones((len(latents), 1), np.float32)], axis=1)
        starts = [int((row @ self._search).argmin()) for row in rows]
        radii = self.distance(latents)
        places = [outward(self.positions, middle, start, r) for start, r in zip(starts, radii, strict=True)]
        return np.array(places).reshape(-1, 2)


def mass_ratio(squared: np.ndarray, squared_peers: np.ndarray) -> np.ndarray:
    """Return 1 / m - 1, the affinity of the virtual peers over that of the neighbours, float64[m].

    squared: float64[m, k], squared distances to the neighbours; squared_peers: [v].
    """
    nearest = squared.min(axis=1, keepdims=True)
    beyond = squared - nearest  # affinities are taken relative to the nearest
    b = precision(beyond)[:, None]
    neighbours = np.exp(-b * beyond).sum(axis=1)
    peers = np.exp(np.minimum(b * (nearest - squared_peers), MAX_EXPONENT)).sum(axis=1)
    return np.minimum(peers / neighbours, 1 / MIN_MASS - 1)


def precision(beyond: np.ndarray) -> np.ndarray:
    """Return the b at which the affinities exp(-b t), t = beyond, have about the perplexity n, float64[m].

    beyond: float64[m, k], zero for the nearest, k = 3 n. Affinities reach as far as 1 / b; so b is in proportion to the
    mean of t, and one factor serves latents of 20 dimensions, near and far: where 30 is asked for they have 21 to 42 (1
    to 99 of 100 real beats and images). Solving for 30 exactly would cost more than all the rest of D, and hardly
    matters: factors of 3.5 to 5.5 move no class's AUROC of S by more than .009, and no mean over classes by more than
    .002 (docs/placement.md).
    """
    return SPREAD / (beyond.mean(axis=1) + TINY)


def radius(ratio: np.ndarray, perplexity: float, mean_z: float) -> np.ndarray:
    """Return the distance from its neighbours at which attraction and repulsion balance (2. above), float64[m].

    ratio: 1 / m - 1, float64[m].
    """
    return np.sqrt(perplexity / mean_z * ratio)


def mean_z(positions: np.ndarray) -> float:
    """Return Zbar: the mean over points of sum_j 1 / (1 + |y_i - y_j|^2), j != i."""
    total = 0.0
    for part in np.array_split(positions.astype(np.float64), max(1, len(positions) // 500)):
        squared = ((part[:, None, :] - positions[None, :, :]) ** 2).sum(axis=2)
        total += float((1 / (1 + squared)).sum()) - len(part)
    return total / len(positions)


def outward(positions: np.ndarray, middle: np.ndarray, start: int, r: float) -> np.ndarray:
    """Return the first place, going outward from a reference, whose nearest reference is r away, float64[2].

    positions: [n, 2]; middle: [2], where outward begins; start: index of the reference to start from.
    """
    origin = positions[start].astype(np.float64)
    direction = origin - middle
    length = np.hypot(*direction)
    direction = direction / length if length > 0 else np.array([1.0, 0.0])
    relative = positions - origin
    along = relative @ direction
    off_squared = np.maximum((relative**2).sum(axis=1) - along**2, 0)
    covers = off_squared < r * r  # each reference closer than r to the ray covers a stretch of it
    half = np.sqrt(r * r - off_squared[covers])
    begin, end = along[covers] - half, along[covers] + half
    order = np.argsort(begin)
    reached = 0.0
    for low, high in zip(begin[order], end[order], strict=True):
        if low > reached:
            break
        reached = max(reached, high)
    return origin + reached * direction
