"""A beta-VAE that `ecgwatch benchmark placement` trained: its saved latents, and those of points left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ecgwatch.errors import ConfigError
from training import train
from training.benchmark.baselines.points import Encoded
from training.models import BetaVAE, Serving, make
from training.parameters import Parameters
from training.run_folder import read_arrays, read_parameters

SAME = 1e-3  # how far latents made here may lie from those saved, in units of their standard deviation
_KNOWN = 500
_AT_ONCE = 250  # points; with more of them memory takes longer than arithmetic


@dataclass(frozen=True)
class Run:
    """A model with what was saved of it.

    train, held_out: latent means, float32[., d]; references: int[r], positions in train; held_out_nse: float64[.];
    unit: float32[d], what the saved latents were multiplied by; losses: NSE of watched normal points, by epoch.
    """

    model: BetaVAE
    parameters: Parameters
    train: np.ndarray
    held_out: np.ndarray
    references: np.ndarray
    held_out_nse: np.ndarray
    unit: np.ndarray
    losses: Sequence[float]

    def encoded(self, test: np.ndarray, drawn: np.ndarray | slice = slice(None)) -> Encoded:
        """Return what it makes of test points float32[m, length]; drawn: which training points are used."""
        latents, nse = encode(self.model, test)
        of_run = self.parameters
        return Encoded(
            self.train[drawn],
            self.held_out,
            latents * self.unit,
            self.train[self.references],
            self.held_out_nse,
            nse,
            of_run.perplexity,
            of_run.peers,
            of_run.log_terms,
            self.losses,
            of_run.cooldown,
        )


def is_whole(folder: Path) -> bool:
    """Tell whether a folder holds a model trained to the end, and its points."""
    if not ((folder / "checkpoint.safetensors").exists() and (folder / "points.npz").exists()):
        return False
    parameters = read_parameters(folder)
    return len(_losses(folder)) == parameters.epochs + parameters.cooldown


def load(folder: Path, known: np.ndarray, train_points: int) -> Run:
    """Load a run.

    known: the test points that it saved, float32[m, length]; train_points: how many it must have saved. Raises
    ConfigError where model, saved points and these are not of one another.
    """
    parameters = read_parameters(folder)
    model = make(parameters, known.shape[1]).eval()
    tensors = load_file(folder / "checkpoint.safetensors")
    train.load_weights(model, tensors)
    arrays = read_arrays(folder / "points.npz")
    saved = arrays["test_latents"]
    others = ConfigError(f"{folder}: points.npz is not of this checkpoint and of these beats; run placement again")
    if len(saved) != len(known) or len(arrays["train_latents"]) != train_points:
        raise others
    raw = encode(model, known[:_KNOWN])[0]
    # --unit-latents divides each dimension by a deviation that neither file names
    unit = (raw * saved[:_KNOWN]).sum(axis=0) / (raw**2).sum(axis=0)
    if np.abs(raw * unit - saved[:_KNOWN]).max() > SAME:
        raise others
    return Run(
        model,
        parameters,
        arrays["train_latents"],
        arrays["held_out_latents"],
        arrays["references"],
        arrays["held_out_nse"].astype(np.float64),
        unit,
        [one["watched_nse"] for one in _losses(folder)],
    )


@torch.no_grad()
def encode(model: BetaVAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latent means float32[n, d] and NSE float64[n] of points float32[n, length]."""
    serving = Serving(model).eval()
    parts = [serving(part) for part in torch.from_numpy(x).split(_AT_ONCE)]
    mean, nse = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return mean, nse.astype(np.float64)


def _losses(folder: Path) -> list[dict[str, float]]:
    return train.checkpoint_losses(folder / "checkpoint.safetensors")
