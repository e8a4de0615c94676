"""The demo's excerpts are what their README says."""

import os
from pathlib import Path

import numpy as np
import pytest

from ecgwatch.demo.plan import EXCERPTS
from ecgwatch.errors import DataError
from training import excerpts
from training.datasets.arrhythmia import DS2

DATA = os.environ.get("ECGWATCH_DATA_DIRECTORY")


@pytest.fixture
def records() -> Path:
    if DATA is None:
        pytest.skip("set ECGWATCH_DATA_DIRECTORY to the folder that holds mitdb/")
    return Path(DATA) / "mitdb"


@pytest.mark.data
def test_the_rule_picks_the_shipped_records(records):
    assert excerpts.chosen({name: excerpts.symbols(records / name) for name in DS2}) == sorted(EXCERPTS)


@pytest.mark.data
@pytest.mark.parametrize("name", EXCERPTS)
def test_a_shipped_excerpt_is_the_records_own_samples_and_annotations(records, name):
    made = excerpts.excerpt(records / name)
    with np.load(excerpts.FOLDER / f"{name}.npz", allow_pickle=False) as shipped:
        assert sorted(shipped.files) == sorted(made)
        assert [key for key in made if not np.array_equal(shipped[key], made[key])] == []


def test_without_records_it_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ECGWATCH_DATA_DIRECTORY", str(tmp_path))
    with pytest.raises(SystemExit) as exit_:
        excerpts.main([])
    assert exit_.value.code == DataError.exit_code
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'mitdb' / '100'}.atr is missing; name the folder")


def test_the_rule_takes_the_first_the_noisiest_and_the_most_of_each_class():
    symbols_of = {"a": ["N"], "b": ["~", "~"], "c": ["A", "V"], "d": ["V", "V"], "e": ["F"], "f": ["N", "A"]}
    assert excerpts.chosen(symbols_of) == ["a", "b", "c", "d", "e"]


def test_the_excerpts_are_a_few_hundred_kilobytes_with_licence_and_citation_beside_them():
    assert sum(file.stat().st_size for file in excerpts.FOLDER.iterdir()) < 500_000
    text = (excerpts.FOLDER / "README.md").read_text()
    for part in ("Open Data Commons Attribution License", "Goldberger", "Moody GB, Mark RG"):
        assert part in text
