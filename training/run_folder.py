"""A run folder: what a run was made with, written once, so that no other run goes on in it."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ecgwatch.errors import ConfigError
from training.parameters import Parameters
from training.text import write_atomically

LIBRARIES = ("torch", "numpy", "openTSNE", "wfdb", "onnx", "onnxruntime-gpu", "onnxruntime", "ecgwatch")


def open_run(folder: Path, parameters: Parameters) -> None:
    """Make a run folder, or check that it was made with the same parameters.

    Raises ConfigError naming the parameters that differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "parameters.json"
    wanted = json.loads(json.dumps(asdict(parameters)))
    if file.exists():
        # a parameter that came later has in older runs the value that changed nothing: its default
        there = json.loads(json.dumps(asdict(Parameters()))) | json.loads(file.read_text())["parameters"]
        differing = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
        if differing:
            said = ", ".join(f"{key} {there.get(key)} there, {wanted.get(key)} now" for key in differing)
            raise ConfigError(f"{folder} holds a run with other parameters ({said}); choose another folder for the run")
        return
    write_atomically(file, json.dumps({"parameters": wanted, "versions": versions()}, indent=2))


def read_parameters(folder: Path) -> Parameters:
    """Return what a run was made with; a parameter that came later has its default (see `open_run`)."""
    there = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))["parameters"]
    return Parameters(**there | {"normal": tuple(there["normal"])})


def versions() -> dict[str, str]:
    """Return the versions of what the result depends on, as far as it is installed; training alone needs not all."""
    return {"python": platform.python_version(), **{name: v for name in LIBRARIES if (v := _version(name))}}


def processor() -> str:
    """Return the processor's name, as the system has it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
