"""What every data set becomes: model inputs with where each came from, and which of them train, calibrate and test."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ecgwatch.errors import DataError

SplitName = Literal["inter-patient", "by-beat", "by-time", "by-image"]


@dataclass(frozen=True)
class Dataset:
    """Model inputs (beats, images), with where each came from.

    x: float32[n, length]; classes: '<U1'[n]; records: str[n], what each was taken from; samples: int64[n], where in the
    record (of a beat: R); clean: bool[n], the window holds no beat of another class than those named normal; hours:
    signal time per record; kinds: every class there may be, in the order shown, and its name; note: what must be said
    beside figures made of it; uncropped: uint8[n, more], larger images of which x are the middles, where training takes
    its crops from those.
    """

    x: np.ndarray
    classes: np.ndarray
    records: np.ndarray
    samples: np.ndarray
    clean: np.ndarray
    hours: dict[str, float]
    kinds: Mapping[str, str]
    note: str = ""
    uncropped: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def training(self, rows: np.ndarray) -> np.ndarray:
        """Return what `training.train.fit` takes of these rows: model inputs, or the larger images that it crops."""
        return self.x[rows] if self.uncropped is None else self.uncropped[rows] / np.float32(255)


@dataclass(frozen=True)
class Split:
    """Positions in a Dataset. train: fits model and map; calibration: scaling and thresholds; test: figures only.

    folds: int[len(calibration)] where what calibrates is of records that train too: the fold of each one's record. A
    model of the other folds' records judges it then, as a stranger's.
    """

    name: SplitName
    normal: tuple[str, ...]
    train: np.ndarray
    calibration: np.ndarray
    test: np.ndarray
    folds: np.ndarray | None = None


def check_normal(normal: Collection[str], kinds: Collection[str]) -> None:
    """Raise DataError where `normal` is empty or names a class that is none of `kinds`."""
    unknown = set(normal) - set(kinds)
    if unknown or not normal:
        raise DataError(
            f"normal classes must be some of {', '.join(kinds)}; got {', '.join(sorted(unknown)) or 'none'}"
        )
