"""The default bundle: what `training.release --remap` refuses, and that what ships is what this version would map."""

from dataclasses import replace
from pathlib import Path

import pytest

from ecgwatch import bundle as bundles
from ecgwatch.errors import ConfigError, DataError
from training import release
from training.parameters import BEDSIDE


def test_another_encoder_is_not_mapped_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "parameters", lambda name: replace(BEDSIDE, epochs=3, latent=5))
    with pytest.raises(ConfigError, match="trained with another epochs, latent: leave out --remap"):
        release.remap(tmp_path / "runs", tmp_path, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_other_references_are_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "parameters", lambda name: replace(BEDSIDE, references=200, peers=3))
    monkeypatch.setattr(release, "read", _no_data)
    with pytest.raises(DataError, match="no records here"):  # it came as far as the records
        release.remap(tmp_path / "runs", tmp_path, tmp_path)


def test_what_is_not_finished_is_not_assembled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inter-patient-0 is not finished, whose figures ship: train it first"):
        release.assemble(tmp_path / "runs", tmp_path, tmp_path)


def _no_data(*_: object) -> None:
    raise DataError("no records here")


def test_the_bundle_that_ships_has_the_default_map() -> None:
    shipped, default = bundles.load("default"), BEDSIDE
    assert len(shipped.map.latents) == default.references
    assert len(shipped.map.peer_distances) == default.peers
    assert shipped.manifest.training["parameters"]["references"] == default.references
