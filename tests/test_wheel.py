"""What `pip install` brings is whole: `ecgwatch demo` and the default model need nothing from the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_both_packages(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "ecgwatch", "training"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(tracked) - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_default_model_and_the_excerpts_with_their_licence(wheel):
    names = set(wheel.namelist())
    assert {
        "ecgwatch/bundles/default.zip",
        "ecgwatch/demo/excerpts/233.npz",
        "ecgwatch/demo/excerpts/README.md",
    } <= names


def test_the_wheel_brings_no_tests_and_is_below_20_mb(wheel):
    assert [name for name in wheel.namelist() if name.startswith(("tests/", "docs/"))] == []
    assert sum(entry.compress_size for entry in wheel.infolist()) < 20_000_000


def test_the_wheel_brings_the_command(wheel):
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "ecgwatch = ecgwatch.cli:entry" in wheel.read(entry_points).decode()
