"""Figures of a bundle on test beats or images, through the worker's own scoring code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from ecgwatch.bundle import Bundle
from ecgwatch.errors import ScoringError
from ecgwatch.scorer import Scorer
from training.datasets.arrhythmia import KINDS, LEARNING_S, PACED, SICK_SINUS
from training.datasets.dataset import Dataset, Split

FS_HZ = 360
TERMS = ("nse", "distance", "score")
_BATCH = 1024


@dataclass(frozen=True)
class Predictions:
    """What a bundle says of test beats or images; all arrays are [n]."""

    nse: np.ndarray
    distance: np.ndarray
    score: np.ndarray
    classes: np.ndarray
    records: np.ndarray
    samples: np.ndarray
    normal: np.ndarray

    def where(self, mask: np.ndarray) -> "Predictions":
        """Return those for which mask is true."""
        return Predictions(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def save(self, file: Path) -> None:
        """Write the arrays as .npz."""
        np.savez_compressed(file, **{name: getattr(self, name) for name in self.__dataclass_fields__})


def load_predictions(file: Path) -> Predictions:
    """Read what `Predictions.save` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return Predictions(**arrays)


def predict(bundle: Bundle, data: Dataset, rows: np.ndarray, normal: tuple[str, ...]) -> Predictions:
    """Score beats as the worker does, on the CPU."""
    scorer = Scorer(bundle, provider="cpu", threads=0)
    parts = [scorer.score(data.x[rows[start : start + _BATCH]]) for start in range(0, len(rows), _BATCH)]
    if not all(part.finite.all() for part in parts):
        raise ScoringError("the model gives a score that is no number")
    nse, distance, score = (np.concatenate([getattr(part, term) for part in parts]) for term in TERMS)
    classes = data.classes[rows]
    return Predictions(
        nse,
        distance,
        score,
        classes=classes,
        records=data.records[rows],
        samples=data.samples[rows],
        normal=np.isin(classes, list(normal)),
    )


def evaluated(predictions: Predictions, split: Split) -> Predictions:
    """Return the beats that figures are taken over: between patients those after the first 5 minutes."""
    if split.name != "inter-patient":
        return predictions
    return predictions.where(predictions.samples >= LEARNING_S * FS_HZ)


def figures(predictions: Predictions, split: Split, bundle: Bundle, data: Dataset) -> dict[str, Any]:
    """Return AUROC of each term over several groups of beats, and the realised alert rates, as plain numbers."""
    if split.name == "by-image":
        return {"auroc": {name: auroc(group) for name, group in _image_groups(predictions, split, data).items()}}
    shown = evaluated(predictions, split)
    if split.name == "inter-patient":
        without = shown.where(shown.records != SICK_SINUS)
        groups = {"all": shown, "without record 232": without}
    elif np.isin(predictions.records, PACED).any():
        without = predictions.where(~np.isin(predictions.records, PACED))
        groups = {"all": predictions, "without paced records": without}
    else:  # the ready-made CSV files name no record; nearly all of their class Q is paced
        without = predictions.where(predictions.classes != "Q")
        groups = {"all": predictions, "without class Q": without}
    result: dict[str, Any] = {"auroc": {name: auroc(group) for name, group in groups.items()}}
    for kind in data.kinds:
        if kind not in split.normal and (without.classes == kind).any():
            name = f"{kind} against normal, {list(groups)[1]}"
            result["auroc"][name] = auroc(without.where(without.normal | (without.classes == kind)))
    if split.name == "inter-patient":
        result["per_record"] = {str(r): auroc(shown.where(shown.records == r)) for r in np.unique(shown.records)}
        result["alerts"] = [
            realised(predictions, t.false_alerts_per_hour, t.score, data.hours) for t in bundle.manifest.thresholds
        ]
    return result


def _image_groups(predictions: Predictions, split: Split, data: Dataset) -> dict[str, Predictions]:
    """All images; where there are several: each anomalous class against normal, each normal one against anomalous."""
    groups = {"all": predictions}
    anomalous = [kind for kind in data.kinds if kind not in split.normal]
    for kind in anomalous if len(anomalous) > 1 else ():
        groups[f"{kind} against normal"] = predictions.where(predictions.normal | (predictions.classes == kind))
    for kind in split.normal if len(split.normal) > 1 else ():
        groups[f"anomalous against {kind}"] = predictions.where(~predictions.normal | (predictions.classes == kind))
    return groups


def auroc(predictions: Predictions) -> dict[str, float | int | None]:
    """Return AUROC of NSE, D and S, None where only one kind of beat is there, with the counts."""
    both = 0 < predictions.normal.sum() < len(predictions.normal)
    values = {
        term: round(float(roc_auc_score(~predictions.normal, getattr(predictions, term))), 4) if both else None
        for term in TERMS
    }
    return {**values, "normal": int(predictions.normal.sum()), "abnormal": int((~predictions.normal).sum())}


def realised(predictions: Predictions, target: float, threshold: float, hours: Mapping[str, float]) -> dict[str, Any]:
    """Return false alerts per hour of normal rhythm, over all records and per record, and the sensitivity per class."""
    alerts = predictions.score > threshold
    false = alerts & predictions.normal
    normal_hours = hours_of_normal_rhythm(predictions.records, predictions.normal, hours)
    per_record = {
        record: round(float(false[predictions.records == record].sum() / of_record), 2) if of_record else None
        for record, of_record in normal_hours.items()
    }
    return {
        "target_per_hour": target,
        "threshold": threshold,
        "false_alerts_per_hour": round(float(false.sum() / sum(normal_hours.values())), 2),
        "false_alerts_per_hour_by_record": per_record,
        "sensitivity": {
            kind: round(float(alerts[predictions.classes == kind].mean()), 4)
            for kind in KINDS
            if (predictions.classes == kind).any() and not predictions.normal[predictions.classes == kind].any()
        },
    }


def hours_of_normal_rhythm(records: np.ndarray, normal: np.ndarray, hours: Mapping[str, float]) -> dict[str, float]:
    """Return of each record hours of normal rhythm: its time, in proportion to its normal beats.

    records: [n], of each beat; normal: bool[n]; hours: of each record.
    """
    found = {}
    for record in np.unique(records).tolist():
        there = records == record
        found[record] = hours[record] * int(normal[there].sum()) / int(there.sum())
    return found
