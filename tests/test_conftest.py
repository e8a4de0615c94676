"""In CI a skip is a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def outcome(tmp_path: Path, test: str, ci: str) -> tuple[int, str]:
    """Run one test file under our conftest.py; return pytest's exit code and what it printed."""
    for name in ("conftest.py", "allowed_skips.txt"):
        (tmp_path / name).write_text((HERE / name).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n{test}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra", str(tmp_path)],
        env={"CI": ci, "PATH": ""},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


SKIP = "def test_one():\n    pytest.skip('no broker here')"
SKIP_FILE = "pytest.skip('no broker here', allow_module_level=True)"


@pytest.mark.parametrize("test", [SKIP, SKIP_FILE])
def test_a_skip_fails_in_ci_and_says_why(tmp_path: Path, test: str):
    code, text = outcome(tmp_path, test, ci="true")
    assert code != 0
    assert "no broker here; in CI a skip is a failure" in text


def test_a_skip_elsewhere_is_a_skip(tmp_path: Path):
    code, text = outcome(tmp_path, SKIP, ci="")
    assert code == 0
    assert "1 skipped" in text


def test_a_listed_marker_may_skip_in_ci(tmp_path: Path):
    code, text = outcome(tmp_path, f"@pytest.mark.gpu\n{SKIP}", ci="true")
    assert code == 0
    assert "1 skipped" in text


def test_an_expected_failure_is_no_skip(tmp_path: Path):
    code, _ = outcome(tmp_path, "@pytest.mark.xfail\ndef test_one():\n    assert False", ci="true")
    assert code == 0
