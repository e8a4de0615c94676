"""Imports go one way, and the worker loads nothing of training."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the bottom to the top: what a module imports when it is imported stands before it.
ORDER = [
    "errors",
    "config",
    "logs",
    "messages",
    "beats",
    "patients",
    "saved",
    "records",
    "tsne_map",
    "bundle",
    "scorer",
    "alerts",
    "score",
    "batch",
    "broker",
    "kafka",
    "group",
    "cluster",
    "baselines",
    "output",
    "batches",
    "watchdog",
    "worker",
    "check",
    "clients",
    "cli",
    "demo",
    "__main__",
]
TRAINING_ONLY = [
    "torch",
    "wfdb",
    "matplotlib",
    "openTSNE",
    "sklearn",
    "scipy",
    "umap",
    "onnx",
    "onnxscript",
    "requests",
    "safetensors",
    "PIL",
    "tqdm",
    "training",
]
FILES = {
    str(file.relative_to(ROOT)): file for folder in ("ecgwatch", "training") for file in (ROOT / folder).rglob("*.py")
}


def imported(file: Path, at_import_time: bool) -> Iterator[str]:
    """Yield what a file imports, as dotted names; at_import_time: without what functions import when they run."""
    tree = ast.parse(file.read_text())
    for node in tree.body if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    """Return the module of the package, as ORDER names it: "demo" for ecgwatch/demo/plan.py or ecgwatch.demo.plan."""
    return name.replace("/", ".").removesuffix(".py").split(".")[1]


def test_every_module_of_the_package_has_its_place_in_the_order():
    assert {top(name) for name in FILES if name.startswith("ecgwatch/")} - {"__init__"} <= set(ORDER)


def test_the_maintainers_map_names_every_module_those_of_the_package_in_this_order():
    page = (ROOT / "docs" / "design.md").read_text()
    package, training = page.split("\n## Training\n")
    assert re.findall(r"^\| `(\w+)/?` \|", package, re.MULTILINE) == ORDER
    files = [Path(name).name for name in FILES if name.startswith("training/") and not name.endswith("__init__.py")]
    assert sorted(files) == sorted(re.findall(r"`(\w+\.py)`", training.split("\n## Habits\n")[0]))
    demo = {Path(name).stem for name in FILES if name.startswith("ecgwatch/demo/")} - {"__init__"}
    assert {name for name in demo if f"`{name}`" not in package} == set()


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("ecgwatch/") and top(name) != "__init__"])
def test_a_module_imports_only_what_stands_before_it(name):
    wanted = {top(other) for other in imported(FILES[name], at_import_time=True) if other.startswith("ecgwatch.")}
    allowed = set(ORDER[: ORDER.index(top(name)) + 1])
    assert wanted - {top(name)} <= allowed


@pytest.mark.parametrize(("library", "home"), [("faust", "ecgwatch/worker.py"), ("onnxruntime", "ecgwatch/scorer.py")])
def test_one_module_of_the_package_imports_the_library(library, home):
    users = [
        name
        for name, file in FILES.items()
        if name.startswith("ecgwatch/")
        and any(other.split(".")[0] == library for other in imported(file, at_import_time=False))
    ]
    assert users == [home]


def test_the_package_imports_training_in_one_place_and_only_when_a_command_runs():
    users = {
        name: top_level
        for name, file in FILES.items()
        if name.startswith("ecgwatch/")
        for top_level in [any(other.split(".")[0] == "training" for other in imported(file, at_import_time=True))]
        if any(other.split(".")[0] == "training" for other in imported(file, at_import_time=False))
    }
    assert users == {"ecgwatch/cli.py": False}


@pytest.mark.parametrize("module", ["ecgwatch.worker", "ecgwatch.cli", "ecgwatch.demo", "ecgwatch.score"])
def test_importing_it_loads_nothing_of_training(module):
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)).intersection(TRAINING_ONLY) == set()


def test_the_workers_installation_asks_for_nothing_of_training():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [requirement.split(">")[0].split("[")[0] for requirement in project["dependencies"]]
    assert set(names).intersection(TRAINING_ONLY) == set()


def test_no_file_is_named_like_a_standard_module():
    stems = {Path(name).stem for name in FILES} - {"__init__", "__main__"}
    assert stems & set(sys.stdlib_module_names) == set()


def test_nothing_reads_or_writes_pickle():
    users = [
        name
        for name, file in FILES.items()
        if any(other.split(".")[0] in ("pickle", "cloudpickle", "joblib", "dill") for other in imported(file, False))
        or "allow_pickle=True" in file.read_text()
    ]
    assert users == []
