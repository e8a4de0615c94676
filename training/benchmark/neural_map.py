"""A network that places points in a t-SNE map: the paper's outlook, 'neural t-SNE'.

A map of references and outliers made for the purpose is drawn once, jointly, as the paper does with its test points; a
network learns where each latent lies in it. New points then need one pass through the network.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from training import reference_map

MADE_UP = 0.2  # outliers among the points that are drawn jointly
STRETCH = 2.0  # how far beyond the normal latents the made-up ones reach, in standard deviations of each dimension
HIDDEN, STEPS, BATCH, LEARNING_RATE = 256, 6000, 256, 1e-3


@dataclass(frozen=True)
class NeuralMap:
    """network: standardised latents -> standardised places; positions: float32[n, 2], the references' places."""

    network: nn.Module
    positions: np.ndarray
    latent_scale: tuple[np.ndarray, np.ndarray]
    place_scale: tuple[np.ndarray, np.ndarray]


def made_up(references: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Make outliers, float32[count, d]: a reference moved by normal noise of STRETCH standard deviations."""
    rng = np.random.default_rng(seed)
    chosen = references[rng.integers(len(references), size=count)]
    noise = rng.normal(size=chosen.shape) * references.std(axis=0) * STRETCH
    return (chosen + noise).astype(np.float32)


def fit(references: np.ndarray, perplexity: float, seed: int, steps: int | None = None) -> NeuralMap:
    """Draw latents float32[n, d] and made-up outliers jointly, and learn the map in so many steps (default: STEPS)."""
    steps = STEPS if steps is None else steps
    outliers = made_up(references, round(MADE_UP * len(references)), seed)
    points = np.concatenate([references, outliers])
    places = np.asarray(reference_map.embed(points, perplexity, seed), np.float32)
    latent_scale, place_scale = _scale(points), _scale(places)
    x, y = (
        torch.from_numpy(((a - mean) / deviation).astype(np.float32))
        for a, (mean, deviation) in ((points, latent_scale), (places, place_scale))
    )
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
        *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)),
    )
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,))
        loss = ((network(x[rows]) - y[rows]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return NeuralMap(network.eval(), places[: len(references)], latent_scale, place_scale)


@torch.no_grad()
def place(neural: NeuralMap, latents: np.ndarray) -> np.ndarray:
    """Return the places of latents float32[m, d], float32[m, 2]."""
    mean, deviation = neural.latent_scale
    out = neural.network(torch.from_numpy(((latents - mean) / deviation).astype(np.float32))).numpy()
    return out * neural.place_scale[1] + neural.place_scale[0]


def _scale(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.mean(axis=0), points.std(axis=0) + 1e-12
