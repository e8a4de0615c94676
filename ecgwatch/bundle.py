"""A model bundle on disk: model.onnx, map.npz, MODEL_CARD.md, bundle.json; every byte checked, no pickle.

A bundle is a folder or the same files in one .zip. `bundle.json` names each file with its SHA-256; `SHA256SUMS` holds
that of bundle.json itself, so that a changed byte anywhere is refused (and `sha256sum -c` can tell it too).
"""

import hashlib
import io
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ecgwatch.beats import Bedside, Contract, ImageContract, of_heartbeats
from ecgwatch.errors import BundleError, ConfigError
from ecgwatch.tsne_map import ReferenceMap

FORMAT_VERSION: Literal[2] = 2  # 1: model.onnx held the encoder alone
MANIFEST, SUMS = "bundle.json", "SHA256SUMS"
MODEL, MAP, CARD = "model.onnx", "map.npz", "MODEL_CARD.md"
MAX_FILE_BYTES = 200_000_000  # what a bundle's file may unpack to

# What zipfile and numpy raise on damaged archives, found by changing every bit of one (tests/test_bundle.py).
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, MemoryError, RuntimeError, ValueError)

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one term is scaled: (value - median) / (upper - median), by its quantiles on held-out normal beats.

    log: the same of the logarithms of all three. most: a scaled term counts as no more than that, if it is set.
    """

    median: float
    upper: float  # the upper quartile: both terms have heavy tails, which would rule a scale taken from them
    limit: float  # the 99 % quantile: what an alert's reason calls the limit of normal beats
    log: bool = False
    most: Annotated[float, Meta(gt=0)] | None = None


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score above which a beat is an alert, for a target rate of false alerts per hour of normal rhythm."""

    false_alerts_per_hour: Annotated[float, Meta(gt=0)]
    score: float


class MapSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the reference map was made and is used (ecgwatch.tsne_map)."""

    references: Annotated[int, Meta(ge=2)]
    perplexity: Annotated[float, Meta(gt=1)]
    peers: Annotated[int, Meta(ge=1)]
    mean_z: Annotated[float, Meta(gt=0)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bundle.json."""

    format_version: Literal[2]
    name: str
    created: str
    files: dict[str, Sha256]
    contract: Contract | Bedside | ImageContract
    latent: Annotated[int, Meta(ge=1)]
    alpha: Annotated[float, Meta(ge=0, le=1)]
    k: Literal[1]
    map: MapSettings
    nse: Scale
    distance: Scale
    thresholds: tuple[Threshold, ...]  # of images none: an hour of them means nothing
    training: dict[str, Any]
    protocol: dict[str, Any]
    figures: dict[str, Any]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if bool(self.thresholds) == isinstance(self.contract, ImageContract):
            raise ValueError("thresholds: a bundle of heartbeats has at least one, one of images has none")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory; sha256: of bundle.json, which names all other hashes."""

    manifest: Manifest
    sha256: str
    model: bytes
    map: ReferenceMap
    card: str

    def threshold(self, false_alerts_per_hour: float) -> float:
        """Return the score above which a beat is an alert.

        Raises ConfigError that names the rates the bundle was calibrated for, BundleError where it scores images.
        """
        of_heartbeats(self.manifest.contract)
        for threshold in self.manifest.thresholds:
            if threshold.false_alerts_per_hour == false_alerts_per_hour:
                return threshold.score
        rates = ", ".join(f"{t.false_alerts_per_hour:g}" for t in self.manifest.thresholds)
        raise ConfigError(
            f"[alerts] false_alerts_per_hour = {false_alerts_per_hour:g}: "
            f"bundle {self.manifest.name} is calibrated for {rates}"
        )


def load(name_or_path: str | Path) -> Bundle:
    """Read and verify a bundle: "default" is the one that ships, anything else a folder or a .zip.

    Raises BundleError for anything missing, changed or of another version.
    """
    where = str(name_or_path)
    files = _read(where)
    try:
        return _verified(files)
    except BundleError as error:
        raise BundleError(f"bundle {where}: {error}") from None


def save(folder: Path, manifest: Manifest, model: bytes, reference_map: ReferenceMap, card: str) -> Bundle:
    """Write a bundle folder, whole or not at all; the manifest's hashes are filled in. Returns it as read back."""
    files = {MODEL: model, MAP: _pack_map(reference_map), CARD: card.encode()}
    manifest = msgspec.structs.replace(manifest, files={name: _sha256(data) for name, data in files.items()})
    files[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    files[SUMS] = f"{_sha256(files[MANIFEST])}  {MANIFEST}\n".encode()
    partial, before = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("part", "before"))
    for leftover in (partial, before):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, data in files.items():
        (partial / name).write_bytes(data)
    if folder.exists():
        folder.replace(before)
    partial.replace(folder)
    shutil.rmtree(before, ignore_errors=True)
    return load(folder)


def pack(folder: Path, file: Path) -> None:
    """Write a bundle folder as a single .zip, the same bytes for the same bundle; verified first."""
    load(folder)
    partial = file.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (MANIFEST, SUMS, MODEL, MAP, CARD):
            archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes(), zipfile.ZIP_DEFLATED)
    partial.replace(file)


def describe(bundle: Bundle) -> str:
    """Return what `ecgwatch bundle show` prints: the manifest as indented JSON, hash first."""
    shown = {"sha256": bundle.sha256, **msgspec.to_builtins(bundle.manifest)}
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _read(where: str) -> dict[str, bytes]:
    try:
        if where == "default":
            shipped = resources.files("ecgwatch") / "bundles" / "default.zip"
            return _unzip(shipped.read_bytes())
        path = Path(where)
        if path.is_dir():
            return {name: _bounded(path / name) for name in (MANIFEST, SUMS, MODEL, MAP, CARD)}
        return _unzip(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(
            f"bundle {where}: {Path(error.filename).name} is missing; "
            "train one with 'ecgwatch train', or name it in [model] bundle"
        ) from None
    except OSError as error:
        raise BundleError(f"bundle {where}: cannot be read: {error.strerror}") from None
    except _DAMAGED as error:
        raise BundleError(f"bundle {where}: no bundle folder and no whole .zip: {error}") from None


def _bounded(file: Path) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise zipfile.BadZipFile(f"{file.name} has more than {MAX_FILE_BYTES} bytes")
    return data


def _unzip(data: bytes) -> dict[str, bytes]:
    """Read the five known members into memory; nothing is unpacked to disk, other members are not looked at."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in (MANIFEST, SUMS, MODEL, MAP, CARD):
            if archive.getinfo(name).file_size > MAX_FILE_BYTES:
                raise zipfile.BadZipFile(f"{name} would unpack to more than {MAX_FILE_BYTES} bytes")
        return {name: archive.read(name) for name in (MANIFEST, SUMS, MODEL, MAP, CARD)}


def _verified(files: Mapping[str, bytes]) -> Bundle:
    sha256 = _sha256(files[MANIFEST])
    if files[SUMS] != f"{sha256}  {MANIFEST}\n".encode():
        raise BundleError(f"{MANIFEST} was changed: its SHA-256 is not the one in {SUMS}")
    manifest = _manifest(files[MANIFEST])
    for name in (MODEL, MAP, CARD):
        if name not in manifest.files:
            raise BundleError(f"{MANIFEST} does not list {name}")
        if _sha256(files[name]) != manifest.files[name]:
            raise BundleError(f"{name} was changed: its SHA-256 is not the one in {MANIFEST}")
    try:
        card = files[CARD].decode()
    except UnicodeDecodeError:
        raise BundleError(f"{CARD} is not UTF-8") from None
    return Bundle(manifest, sha256, files[MODEL], _unpack_map(files[MAP], manifest), card)


def _manifest(data: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(data).get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(f"format version {version}; this ecgwatch reads version {FORMAT_VERSION}")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, AttributeError) as error:
        raise BundleError(f"{MANIFEST}: {error}") from None


def _pack_map(reference_map: ReferenceMap) -> bytes:
    """Return an .npz file, not compressed; numpy's own differs between Python's patch releases (headers), and zlibs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in ("latents", "positions", "peer_distances"):
            array = io.BytesIO()
            np.lib.format.write_array(array, getattr(reference_map, name), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    return buffer.getvalue()


def _unpack_map(data: bytes, manifest: Manifest) -> ReferenceMap:
    settings = manifest.map
    shapes = {
        "latents": (settings.references, manifest.latent),
        "positions": (settings.references, 2),
        "peer_distances": (settings.peers,),
    }
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in shapes}
    except _DAMAGED as error:
        raise BundleError(f"{MAP}: {error}") from None
    for name, array in loaded.items():
        if array.shape != shapes[name] or array.dtype != np.float32:
            raise BundleError(f"{MAP}: {name} is {array.dtype}{list(array.shape)}, not float32{list(shapes[name])}")
        array.flags.writeable = False
    return ReferenceMap(**loaded, perplexity=settings.perplexity, mean_z=settings.mean_z)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
