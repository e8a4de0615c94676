"""scikit-learn's own: isolation forest, one-class SVM, and a deep belief net below the latter."""

import numpy as np
from scipy.special import expit
from sklearn.ensemble import IsolationForest
from sklearn.neural_network import BernoulliRBM
from sklearn.svm import OneClassSVM
from tqdm import tqdm

from training.benchmark.baselines.points import Points, Scored, subsample
from training.parameters import Parameters

OCSVM_POINTS = 10_000  # its kernel matrix is quadratic in them
NU = 0.01  # share of the training points that may lie outside; .001 to .1 hardly matter here, the width does
LAYERS = (128, 32)
BATCH = Parameters.batch


def isolation_forest(points: Points, samples: float) -> Scored:
    """Score by an isolation forest on raw points (Liu et al. 2008), 100 trees of so many samples each."""
    forest = IsolationForest(
        n_estimators=100, max_samples=min(int(samples), len(points.train)), random_state=points.seed
    )
    forest.fit(points.train)
    return Scored(-forest.score_samples(points.test), len(points.train))


def raw_ocsvm(points: Points, gamma: float) -> Scored:
    """Score by a one-class SVM on raw points."""
    return ocsvm(points.train, points.test, gamma, points.seed)


def ocsvm(train: np.ndarray, test: np.ndarray, gamma: float, seed: int) -> Scored:
    """Score test float[m, d] by a one-class SVM (RBF) fitted to a subsample of train, float[n, d].

    gamma: of the kernel, in units of scikit-learn's default, 1 / (d times the variance).
    """
    drawn = subsample(train, OCSVM_POINTS, seed)
    machine = OneClassSVM(nu=NU, gamma=gamma / (drawn.shape[1] * drawn.var())).fit(drawn)
    note = f"{len(drawn):,} drawn of {len(train):,} training points" if len(drawn) < len(train) else ""
    return Scored(-machine.score_samples(test), len(drawn), note=note)


def dbn_ocsvm(points: Points, gamma: float) -> Scored:
    """Score by a one-class SVM on the features of a deep belief net (Erfani et al. 2016), inputs in [0, 1].

    Restricted Boltzmann machines are trained one on the other; all points train them. The curves are their errors of
    reconstruction.
    """
    layers, curves = [points.train, points.held_out, points.test], {}
    for number, units in enumerate(LAYERS):
        machine = BernoulliRBM(units, batch_size=BATCH, random_state=points.seed)
        curves[f"layer {number + 1}"] = _fit(machine, layers[0], layers[1], points)
        layers = [machine.transform(one) for one in layers]
    found = ocsvm(layers[0], layers[2], gamma, points.seed)
    return Scored(found.scores, len(points.train), curves, f"OCSVM: {found.note}" if found.note else "")


def _fit(machine: BernoulliRBM, x: np.ndarray, held_out: np.ndarray, points: Points) -> list[float]:
    rng = np.random.default_rng(points.seed)
    curve = []
    for _ in tqdm(range(points.epochs), desc="RBM", unit="epoch", leave=False):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            machine.partial_fit(x[order[start : start + BATCH]])
        again = expit(machine.transform(held_out) @ machine.components_ + machine.intercept_visible_)
        curve.append(float(((held_out - again) ** 2).sum(axis=1).mean()))
    return curve
