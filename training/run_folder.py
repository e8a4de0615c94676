"""A run folder: what a run was made with, written once, so that no other run goes on in it."""

import json
import platform
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ecgwatch.errors import ConfigError, DataError
from training.parameters import Parameters
from training.text import write_atomically

LIBRARIES = ("torch", "numpy", "openTSNE", "wfdb", "onnx", "onnxruntime-gpu", "onnxruntime", "ecgwatch")


def open_run(folder: Path, parameters: Parameters) -> None:
    """Make a run folder, or check that it was made with the same parameters.

    Raises ConfigError naming the parameters that differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "parameters.json"
    wanted = as_json(parameters)
    if file.exists():
        # a parameter that came later has in older runs the value that changed nothing: its default
        if said := differing(as_json(Parameters()) | read_json(file)["parameters"], wanted):
            raise ConfigError(f"{folder} holds a run with other parameters ({said}); choose another folder for the run")
        return
    write_atomically(file, json.dumps({"parameters": wanted, "versions": versions()}, indent=2))


def as_json(parameters: Parameters) -> dict[str, Any]:
    """Return parameters as a JSON file has them."""
    return json.loads(json.dumps(asdict(parameters)))


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any], free: Collection[str] = ()) -> str:
    """Say in which parameters a run differs from those that are wanted; free: those that may; empty where none does."""
    names = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    return ", ".join(f"{name} {there.get(name)} there, {wanted.get(name)} now" for name in names if name not in free)


def read_parameters(folder: Path) -> Parameters:
    """Return what a run was made with; a parameter that came later has its default (see `open_run`).

    Raises DataError naming a file that is damaged, or of a newer version.
    """
    file = folder / "parameters.json"
    try:
        there = read_json(file)["parameters"]
        return Parameters(**there | {"normal": tuple(there["normal"])})
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} holds no parameters of this version: {error}") from None


def read_json(file: Path) -> Any:
    """Return what a JSON file holds; raises DataError naming one that is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(_damaged(file, error)) from None


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file; raises DataError naming one that is damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(_damaged(file, error)) from None


def _damaged(file: Path, error: Exception) -> str:
    return f"{file} is damaged ({error}): copy it again, or remove it, and it is made anew"


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
