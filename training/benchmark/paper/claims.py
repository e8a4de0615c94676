"""The paper's claims, each with a plain rule and the verdict that the rows give.

A claim is looked at case by case (a class, a cell). It holds where at least nine cases in ten do, in part where at
least half do, else it does not hold; without a case it is not tested, nor where those missing of all that there are
could change the verdict. "In all five classes" is taken at its word. Unless a rule says otherwise: the paper's setting,
k = 1, NSE through a sampled z, best alpha on the test points.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from training.benchmark.paper.cells import ENCODERS, JOINT, JOINT_Z
from training.benchmark.paper.choices import Chosen, at, chosen, main, over_beta, select
from training.benchmark.paper.figures import MEAN, PRINTED, Row
from training.benchmark.tables import LATENT, OURS
from training.parameters import CLASSES

ALIKE = 0.01  # AUROC; what is no further apart counts as the same
ABOVE = 0.005
BETA_CLASSES, BETA_DATASETS = 5, 3  # at least; figure 2 has one class of each of five data sets
HOLDS, IN_PART, FAILS, UNTESTED = "holds", "holds in part", "does not hold", "not tested"
Cases = Iterator[tuple[str, float]]  # of each case its name and by how much it holds, not at all below 0


class Claim(NamedTuple):
    """A sentence of the paper, where it stands, the rule that tests it, the least share of cases, how many there are.

    of: 1 where there may be any number.
    """

    claim: str
    place: str
    rule: str
    cases: Callable[[Sequence[Row]], Cases]
    least: float = 0.9
    of: int = 1


class Verdict(NamedTuple):
    """What became of a claim: how many of its cases hold, the median margin, and the cases that do not."""

    claim: str
    place: str
    rule: str
    verdict: str
    cases: int
    hold: int
    median: float | None
    against: str


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdict on every claim."""
    return [judge(claim, rows) for claim in CLAIMS]


def judge(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """Apply a claim's rule."""
    cases = list(claim.cases(rows))
    against = [name for name, margin in cases if margin < 0]
    hold = len(cases) - len(against)
    missing = max(claim.of - len(cases), 0)
    worst, best = (_said(claim, share / (len(cases) + missing)) for share in (hold, hold + missing))
    said = worst if worst == best else UNTESTED
    median = float(np.median([margin for _, margin in cases])) if cases else None
    return Verdict(claim.claim, claim.place, claim.rule, said, len(cases), hold, median, ", ".join(against))


def _said(claim: Claim, share: float) -> str:
    """Return the verdict where a share of the cases holds."""
    return HOLDS if share >= claim.least else IN_PART if share >= 0.5 else FAILS


def _classes(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the classes of the paper's setting, by name, with their rows."""
    for dataset, anomaly in dict.fromkeys((row.dataset, row.anomaly) for row in main(rows)):
        yield f"{dataset} {anomaly}", select(main(rows), dataset=dataset, anomaly=anomaly)


def _beta_below_one(rows: Sequence[Row]) -> Cases:
    cases = list(_below_beside_from_one(rows))
    if len(cases) >= BETA_CLASSES and len({name.split()[0] for name, _ in cases}) >= BETA_DATASETS:
        yield from cases


def _below_beside_from_one(rows: Sequence[Row]) -> Cases:
    for name, of_class in _classes(rows):
        best = {beta: max(of_beta) for beta, of_beta in over_beta(at(of_class, JOINT)).items()}
        below, others = ([best[beta] for beta in best if (beta < 1) == wanted and beta > 0] for wanted in (True, False))
        if below and others:
            yield name, max(below) - max(others)


def _alike(
    of_class: Sequence[Row],
    pick: Callable[[Sequence[Row]], Chosen | None],
    other: Callable[[Sequence[Row]], Chosen | None],
) -> float | None:
    one, two = pick(of_class), other(of_class)
    return None if one is None or two is None else ALIKE - abs(one.auroc - two.auroc)


def _best(of_class: Sequence[Row], placing: str = JOINT, k: int = 1) -> Chosen | None:
    return chosen(at(of_class, placing, k=k))


def _k_alike(rows: Sequence[Row]) -> Cases:
    for name, of_class in _classes(rows):
        for k in (3, 5):
            margin = _alike(of_class, _best, partial(_best, k=k))
            if margin is not None:
                yield f"{name} k={k}", margin


def _mu_and_z_alike(rows: Sequence[Row]) -> Cases:
    for name, of_class in _classes(rows):
        margin = _alike(of_class, _best, partial(_best, placing=JOINT_Z))
        if margin is not None:
            yield name, margin


def _above_latent(placing: str) -> Callable[[Sequence[Row]], Cases]:
    def cases(rows: Sequence[Row]) -> Cases:
        for name, of_class in _classes(rows):
            mapped, latent = chosen(at(of_class, placing), (0.0,)), chosen(at(of_class, LATENT), (0.0,))
            if mapped and latent:
                yield name, mapped.auroc - latent.auroc - ABOVE

    return cases


def _above_both_terms(rows: Sequence[Row]) -> Cases:
    for name, of_class in _classes(rows):
        whole = chosen(at(of_class, JOINT))
        parts = [one for alpha in (0.0, 1.0) if (one := chosen(at(of_class, JOINT), (alpha,)))]
        if whole and parts:
            yield name, whole.auroc - max(one.auroc for one in parts) - ABOVE


def _above_reconstruction(rows: Sequence[Row]) -> Cases:
    for name, of_class in _classes(rows):
        whole, part = chosen(at(of_class, JOINT)), chosen(at(of_class, JOINT), (1.0,))
        if whole and part:
            yield name, whole.auroc - part.auroc - ABOVE


def _of_encoders(rows: Sequence[Row], anomaly: str) -> dict[str, float]:
    """Return S of each encoder of ECG at beta .01, where one seed was trained for all of them that seed alone."""
    by_beat = select(rows, dataset="arrhythmia", split="by-beat", share=1.0, anomaly=anomaly, beta=0.01, seed=0)
    found = {name: chosen(at(select(by_beat, network=name), JOINT)) for name in ENCODERS}
    return {name: one.auroc for name, one in found.items() if one}


def _tcn_above(rows: Sequence[Row]) -> Cases:
    for anomaly in CLASSES["arrhythmia"]:
        tcn, *others = (_of_encoders(rows, anomaly).get(name) for name in ENCODERS)
        known = [one for one in others if one is not None]
        if tcn is not None and known:
            margin = tcn - max(known) - ABOVE
            if margin < 0 or len(known) == len(others):  # one encoder that is as good is enough against it
                yield f"arrhythmia {anomaly}", margin


def _cnn_weak_on_n(rows: Sequence[Row]) -> Cases:
    behind = {}
    for anomaly in CLASSES["arrhythmia"]:
        found = _of_encoders(rows, anomaly)
        if "tcn" in found and "cnn" in found:
            behind[anomaly] = found["tcn"] - found["cnn"]
    if len(behind) == len(CLASSES["arrhythmia"]):
        yield "arrhythmia N", behind.pop("N") - max(behind.values()) - ALIKE


def _easier_alpha(distance: str) -> Callable[[Sequence[Row]], Cases]:
    def cases(rows: Sequence[Row]) -> Cases:
        for name, of_class in _classes(rows):
            plain, other = over_beta(at(of_class, JOINT)), over_beta(at(of_class, JOINT, distance=distance))
            if 0.01 in plain and 0.01 in other:
                near = [sum(of_alpha >= of_alpha.max() - ALIKE) for of_alpha in (plain[0.01], other[0.01])]
                yield name, float(near[1] - near[0]) - 1

    return cases


def _lower_alpha(distance: str) -> Callable[[Sequence[Row]], Cases]:
    def cases(rows: Sequence[Row]) -> Cases:
        for name, of_class in _classes(rows):
            plain, other = chosen(at(of_class, JOINT)), chosen(at(of_class, JOINT, distance=distance))
            lowest = chosen(at(of_class, JOINT), (0.0,))
            if plain and other and lowest and plain.auroc > lowest.auroc:
                yield name, plain.alpha - other.alpha - 1e-6

    return cases


_EASY = f"more alphas of the grid lie within {ALIKE} of the best than with the plain distance (beta .01)"
_LOWER = "the best alpha is lower than with the plain distance; classes that 0 is best for already are left out"
_BEST_OF = f"by more than {ABOVE}; margins are what is beyond that"
CLAIMS = (
    Claim(
        "beta < 1 is best",
        "4.2, 5",
        "the best AUROC of betas below 1 is above that of betas from 1; five classes of three data sets at least",
        _beta_below_one,
    ),
    Claim("k of 1, 3 and 5 are alike", "4", f"best S of k = 3, 5 within {ALIKE} of that of k = 1", _k_alike),
    Claim("mu and z are alike", "3.3, table 2", f"best S of both within {ALIKE}", _mu_and_z_alike),
    Claim(
        "t-SNE is better than latent distance", "4.4", f"D of the joint map above it {_BEST_OF}", _above_latent(JOINT)
    ),
    Claim("the same, each point placed alone (ours)", "-", f"D, streaming, above it {_BEST_OF}", _above_latent(OURS)),
    Claim("t-SNE improves on reconstruction", "4.1", f"S above NSE alone {_BEST_OF}", _above_reconstruction),
    Claim("both terms complement each other", "4.4", f"S above the better term {_BEST_OF}", _above_both_terms),
    Claim(
        "TCN is above CNN and LSTM in all five classes", "4.5", f"S above both {_BEST_OF}; all five", _tcn_above, 1.0, 5
    ),
    Claim("CNN is weak on N", "4.5", f"TCN - CNN on N is {ALIKE} more than on any other class", _cnn_weak_on_n),
    Claim("normalised distance eases alpha (as printed)", "3.5, F", _EASY, _easier_alpha(PRINTED)),
    Claim("normalised distance eases alpha (1/n^2)", "3.5, F", _EASY, _easier_alpha(MEAN)),
    Claim("normalised distance lowers the best alpha (as printed)", "4.4, F", _LOWER, _lower_alpha(PRINTED)),
    Claim("normalised distance lowers the best alpha (1/n^2)", "4.4, F", _LOWER, _lower_alpha(MEAN)),
)
