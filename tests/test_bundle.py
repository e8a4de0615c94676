"""A bundle on disk: what is damaged, incomplete or of another version is refused, in one line."""

import errno
import hashlib
import io
import json
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside, Contract, ImageContract, prepare
from ecgwatch.bundle import Bundle, Manifest, MapSettings, Scale, Threshold
from ecgwatch.errors import BundleError, ConfigError
from ecgwatch.tsne_map import ReferenceMap

REFERENCES, LATENT, PEERS = 6, 3, 2


def manifest() -> Manifest:
    return Manifest(
        format_version=2,
        name="made",
        created="2026-11-24",
        files={},
        contract=Contract(),
        latent=LATENT,
        alpha=0.5,
        k=1,
        map=MapSettings(REFERENCES, 3.0, PEERS, 2.5),
        nse=Scale(0.1, 0.2, 0.3),
        distance=Scale(1.0, 2.0, 3.0),
        thresholds=(Threshold(2.0, 9.0), Threshold(10.0, 5.0)),
        training={"beats": 1},
        protocol={"text": "made"},
        figures={},
        versions={"numpy": "2"},
    )


def reference_map() -> ReferenceMap:
    rng = np.random.default_rng(0)
    arrays = (rng.random(shape, np.float32) for shape in ((REFERENCES, LATENT), (REFERENCES, 2), (PEERS,)))
    return ReferenceMap(*arrays, perplexity=3.0, mean_z=2.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundles.save(tmp_path / "made", manifest(), b"a model", reference_map(), "# card\n")
    return tmp_path / "made"


@pytest.fixture
def archive(folder: Path) -> Path:
    bundles.pack(folder, folder.with_suffix(".zip"))
    return folder.with_suffix(".zip")


def rewrite(folder: Path, **changes: object) -> None:
    """Change bundle.json and make its sum right again, as somebody who means it would."""
    data = json.loads((folder / "bundle.json").read_text())
    data.update(changes)
    text = json.dumps({key: value for key, value in data.items() if value is not None}).encode()
    (folder / "bundle.json").write_bytes(text)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(text).hexdigest()}  bundle.json\n")


def refusal(path: Path | str) -> str:
    with pytest.raises(BundleError) as refused:
        bundles.load(path)
    text = str(refused.value)
    assert "\n" not in text
    assert text.startswith(f"bundle {path}: ")
    return text


def content(bundle: Bundle) -> tuple[object, ...]:
    arrays = (bundle.map.latents, bundle.map.positions, bundle.map.peer_distances)
    return (bundle.manifest, bundle.sha256, bundle.model, bundle.card, *(a.tobytes() for a in arrays))


def test_what_was_saved_comes_back(folder):
    loaded, given = bundles.load(folder), reference_map()
    assert (loaded.model, loaded.card) == (b"a model", "# card\n")
    assert np.array_equal(loaded.map.latents, given.latents)
    assert np.array_equal(loaded.map.positions, given.positions)
    assert np.array_equal(loaded.map.peer_distances, given.peer_distances)
    assert (loaded.map.perplexity, loaded.map.mean_z) == (3.0, 2.5)


def test_folder_and_archive_are_the_same_bundle(folder, archive):
    assert content(bundles.load(archive)) == content(bundles.load(folder))


def test_the_same_bundle_packs_to_the_same_bytes(folder, archive, tmp_path):
    bundles.pack(folder, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_sums_are_what_sha256sum_reads(folder):
    digest, name = (folder / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest == bundles.load(folder).sha256


@pytest.mark.parametrize("name", ["model.onnx", "map.npz", "MODEL_CARD.md", "bundle.json", "SHA256SUMS"])
def test_a_changed_byte_is_refused_by_the_files_name(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert "was changed" in (text := refusal(folder))
    assert name in text


@pytest.mark.parametrize("name", ["model.onnx", "map.npz", "MODEL_CARD.md", "bundle.json", "SHA256SUMS"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(folder)


def test_a_changed_byte_anywhere_in_an_archive_is_refused_or_means_nothing(archive, tmp_path):
    whole, data = content(bundles.load(archive)), archive.read_bytes()
    file, refused = tmp_path / "changed.zip", 0
    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        try:
            assert content(bundles.load(file)) == whole, position
        except BundleError:
            refused += 1
    assert refused > len(data) / 6  # the rest: dates, attributes, second copies of sizes


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.99])
def test_a_truncated_archive_is_refused(archive, share):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    assert "no whole .zip" in refusal(archive)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\x80\x04not a bundle" * 100)
    assert "no whole .zip" in refusal(tmp_path / "model.bin")


def test_a_bundle_that_is_not_there_says_what_to_do(tmp_path):
    assert "'ecgwatch train'" in refusal(tmp_path / "none.zip")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_format_version_is_refused_and_named(folder, version):
    rewrite(folder, format_version=version)
    assert f"format version {version}; this ecgwatch reads version 2" in refusal(folder)


@pytest.mark.parametrize("key", [name for name in Manifest.__struct_fields__ if name != "format_version"])
def test_a_missing_key_is_refused_and_named(folder, key):
    rewrite(folder, **{key: None})
    assert f"bundle.json: Object missing required field `{key}`" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "blue"}, "colour"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": "0.5"}, "alpha"),
        ({"k": 2}, "k"),
        ({"thresholds": []}, "thresholds"),
        ({"latent": LATENT + 1}, "latents"),
        ({"map": {"references": REFERENCES - 1, "perplexity": 3.0, "peers": PEERS, "mean_z": 2.5}}, "latents"),
        ({"files": {}}, "model.onnx"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_and_named(folder, change, named):
    rewrite(folder, **change)
    assert named in refusal(folder)


@pytest.fixture
def images(tmp_path: Path) -> Bundle:
    made = msgspec.structs.replace(manifest(), contract=ImageContract(), thresholds=())
    return bundles.save(tmp_path / "images", made, b"a model", reference_map(), "# card\n")


def test_a_bundle_of_images_is_read_back_with_its_contract_and_without_thresholds(images):
    assert images.manifest.contract == ImageContract(28, 28, 1, "0-1")
    assert images.manifest.contract.length == 784
    assert json.loads(bundles.describe(images))["contract"]["kind"] == "image"


def test_a_bundle_of_images_is_refused_where_heartbeats_are_to_be_scored(images):
    for use in (lambda: images.threshold(10.0), lambda: prepare([], images.manifest.contract)):
        with pytest.raises(BundleError, match=r"scores images of 28 x 28 pixels.* \[model\] bundle") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_threshold_per_hour_in_a_bundle_of_images_is_refused(images, tmp_path):
    rewrite(tmp_path / "images", thresholds=[{"false_alerts_per_hour": 2.0, "score": 9.0}])
    assert "thresholds" in refusal(tmp_path / "images")


def test_the_contract_of_another_kind_is_refused_and_named(folder):
    rewrite(folder, contract={"kind": "sound"})
    assert "sound" in refusal(folder)


def test_the_contract_of_heartbeats_is_written_as_it_always_was(folder):
    written = json.loads((folder / "bundle.json").read_text())["contract"]
    assert list(written)[:3] == ["kind", "fs_hz", "length"]
    assert written["kind"] == "segment"


@pytest.mark.parametrize("text", [b"null", b"[]", b"{", b"", b"\xff"])
def test_a_manifest_that_is_no_object_is_refused(folder, text):
    (folder / "bundle.json").write_bytes(text)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(text).hexdigest()}  bundle.json\n")
    assert "bundle.json" in refusal(folder)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def hash_again(folder: Path, name: str) -> None:
    """Make the hash of a changed file right again."""
    files = json.loads((folder / "bundle.json").read_text())["files"]
    rewrite(folder, files={**files, name: hashlib.sha256((folder / name).read_bytes()).hexdigest()})


def replace_map(folder: Path, **arrays: np.ndarray) -> None:
    """Write other arrays as the map."""
    np.savez(folder / "map.npz", **arrays)
    hash_again(folder, "map.npz")


def test_a_pickle_in_the_map_is_refused_and_not_run(folder, tmp_path):
    replace_map(folder, latents=np.array([Bomb(tmp_path / "exploded")], object))
    assert "map.npz" in refusal(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_map_of_other_numbers_than_float32_is_refused(folder):
    given = reference_map()
    arrays = {
        "latents": given.latents.astype(float),
        "positions": given.positions,
        "peer_distances": given.peer_distances,
    }
    replace_map(folder, **arrays)
    assert "map.npz: latents is float64[6, 3], not float32[6, 3]" in refusal(folder)


def test_a_map_that_says_it_is_larger_than_memory_is_refused(folder):
    header = io.BytesIO()
    said = {"descr": "<f4", "fortran_order": False, "shape": (10**13, 3)}
    np.lib.format.write_array_header_1_0(header, said)
    with zipfile.ZipFile(folder / "map.npz", "w") as archive:
        archive.writestr("latents.npy", header.getvalue())
    hash_again(folder, "map.npz")
    assert "map.npz: Unable to allocate" in refusal(folder)


def test_a_card_that_is_no_text_is_refused(folder):
    (folder / "MODEL_CARD.md").write_bytes(b"\xff")
    hash_again(folder, "MODEL_CARD.md")
    assert "MODEL_CARD.md is not UTF-8" in refusal(folder)


def test_a_file_of_a_folder_beyond_the_limit_is_refused(folder, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_FILE_BYTES", 6)
    assert "has more than 6 bytes" in refusal(folder)


def test_a_bundle_that_is_saved_over_stays_whole_until_the_new_one_is(folder, monkeypatch):
    def full(file: Path, data: bytes) -> int:
        if file.name == "map.npz":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    write, before = Path.write_bytes, bundles.load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            bundles.save(folder, manifest(), b"another model", reference_map(), "# card\n")
    assert content(bundles.load(folder)) == content(before)
    after = bundles.save(folder, manifest(), b"another model", reference_map(), "# card\n")
    assert (after.model, bundles.load(folder).model) == (b"another model",) * 2
    assert [one.name for one in folder.parent.iterdir() if one.name.startswith("made")] == ["made"]


def test_a_member_that_would_unpack_beyond_the_limit_is_refused(archive, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_FILE_BYTES", 6)
    assert "would unpack to more than 6 bytes" in refusal(archive)


def test_an_archive_writes_nothing_to_disk_whatever_its_members_are_called(archive, tmp_path):
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../escaped.txt", "out")
    before = sorted(tmp_path.rglob("*"))
    bundles.load(archive)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_threshold_is_found_by_its_rate_and_another_rate_names_those_there_are(folder):
    loaded = bundles.load(folder)
    assert loaded.threshold(10.0) == 5.0
    with pytest.raises(ConfigError, match=r"false_alerts_per_hour = 3: bundle made is calibrated for 2, 10"):
        loaded.threshold(3.0)


def test_a_loaded_map_cannot_be_changed(folder):
    with pytest.raises(ValueError, match="read-only"):
        bundles.load(folder).map.latents[0] = 0


def test_the_shipped_bundle_is_whole_and_below_10_megabytes():
    loaded = bundles.load("default")
    assert loaded.manifest.contract == Bedside()  # what this version makes of beats is what the model was trained on
    assert (Path(bundles.__file__).parent / "bundles" / "default.zip").stat().st_size < 10_000_000


def test_the_shipped_bundle_is_written_again_with_the_same_hash(tmp_path):
    loaded = bundles.load("default")
    assert bundles.save(tmp_path, loaded.manifest, loaded.model, loaded.map, loaded.card).sha256 == loaded.sha256
