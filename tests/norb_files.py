"""Small Small-NORB files in the published binary-matrix format."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets import norb
from training.datasets.download import Release

MAGIC = {"u1": 0x1E3D4C55, "i4": 0x1E3D4C54}


def packed(array: np.ndarray) -> bytes:
    """Return the binary matrix, packed, of an array of bytes or int32: at least three sizes, as published."""
    sizes = [*array.shape, 1, 1][: max(3, array.ndim)]
    head = np.array([MAGIC[array.dtype.str[1:]], array.ndim, *sizes], "<i4").tobytes()
    return gzip.compress(head + array.tobytes(), compresslevel=1, mtime=0)


def write(folder: Path, pairs: int = 20, seed: int = 0) -> Release:
    """Write both parts: each class a square of its own place, the second camera's darker. Return their release."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hashes = {}
    for stem in (norb.TRAIN, norb.TEST):
        labels = np.arange(pairs, dtype="<i4") % 5
        pixels = rng.integers(0, 60, (pairs, 2, 96, 96)).astype(np.uint8)
        for pair, label in zip(pixels, labels.tolist(), strict=True):
            pair[:, 20 + 10 * label : 40 + 10 * label, 30:60] += np.array([180, 150], np.uint8)[:, None, None]
        for kind, array in (("dat", pixels), ("cat", labels)):
            data = packed(array)
            (folder / f"{stem}-{kind}.mat.gz").write_bytes(data)
            hashes[f"{stem}-{kind}.mat.gz"] = hashlib.sha256(data).hexdigest()
    return replace(norb.RELEASE, hashes=hashes)
