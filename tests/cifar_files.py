"""Small CIFAR-10 files in the official binary layout."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from training.datasets import cifar


def write(folder: Path, of_file: int = 20, seed: int = 0) -> dict[str, str]:
    """Write the six files into the folder: each class a square of its own place and colour. Return their SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hashes = {}
    for name in (*cifar.TRAIN, cifar.TEST):
        labels = np.arange(of_file) % 10
        pixels = rng.integers(0, 60, (of_file, 3, 32, 32))
        for image, label in zip(pixels, labels.tolist(), strict=True):
            image[label % 3, 2 * label : 2 * label + 8, 4:20] += 180
        data = np.concatenate([labels[:, None], pixels.reshape(of_file, -1)], axis=1).astype(np.uint8).tobytes()
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    return hashes


def pack(folder: Path, archive: Path) -> dict[str, str]:
    """Write the publisher's archive of the files in a folder. Return its SHA-256 by its name."""
    with tarfile.open(archive, "w:gz") as opened:
        root = tarfile.TarInfo(cifar.UNPACKED)
        root.type = tarfile.DIRTYPE
        opened.addfile(root)
        for file in sorted(folder.iterdir()):
            member = tarfile.TarInfo(f"{cifar.UNPACKED}/{file.name}")
            member.size = file.stat().st_size
            opened.addfile(member, io.BytesIO(file.read_bytes()))
    return {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()}
