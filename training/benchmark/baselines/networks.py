"""An LSTM-VAE and Deep SVDD in torch, and the training loop that all networks of the comparison share.

A recurrent network reads a beat as frames of 11 samples (187 = 17 x 11): step by step takes eleven times as long.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from training.benchmark.baselines.points import Points, Scored
from training.losses import beta_vae_loss
from training.parameters import Parameters
from training.train import COOLING, seed_all

BATCH, LEARNING_RATE = Parameters.batch, Parameters.learning_rate  # as our own models have them
COOLDOWN = 0.1  # last share of the epochs, at a tenth of the learning rate, as our own models have it
FRAME = 11
HIDDEN = 64
LATENT = 20


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    points: Points,
    desc: str,
    parameters: Iterable[nn.Parameter] | None = None,
    weight_decay: float = 0.0,
) -> list[float]:
    """Minimise a loss of batches with Adam; return its mean over the held-out points after each epoch.

    parameters: those that are trained, where not all of the model's.
    """
    chosen = list(model.parameters() if parameters is None else parameters)
    optimizer = torch.optim.Adam(chosen, LEARNING_RATE, weight_decay=weight_decay)
    curve = []
    for _ in epochs(points, [optimizer], desc):
        model.train()
        for x in batches(points):
            value = loss(x)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            curve.append(float(loss(torch.from_numpy(points.held_out))))
    return curve


def epochs(points: Points, optimizers: Iterable[torch.optim.Optimizer], desc: str) -> Iterable[int]:
    """Yield the epochs with a progress bar, each with its own random numbers, the last ones with a lower rate."""
    for epoch in tqdm(range(points.epochs), desc=desc, unit="epoch", leave=False):
        seed_all(points.seed, epoch + 1)
        if epoch == points.epochs - cooldown(points):
            for group in (group for one in optimizers for group in one.param_groups):
                group["lr"] *= COOLING
        yield epoch


def cooldown(points: Points) -> int:
    """Return how many epochs have the lower rate."""
    return round(COOLDOWN * points.epochs)


def batches(points: Points) -> Iterable[Tensor]:
    """Yield the training points in random order, in whole batches where there is one."""
    x = torch.from_numpy(points.train)
    for rows in torch.randperm(len(x)).split(BATCH):
        if len(rows) == min(BATCH, len(x)):
            yield x[rows]


@torch.no_grad()
def scored(score: Callable[[Tensor], Tensor], x: np.ndarray, at_once: int = 1000) -> np.ndarray:
    """Apply a score to points float32[m, length] in parts; float64[m]."""
    return torch.cat([score(part) for part in torch.from_numpy(x).split(at_once)]).numpy().astype(np.float64)


def frames(x: Tensor) -> Tensor:
    """[n, length] -> [n, frames, FRAME], filled up with zeros."""
    return functional.pad(x, (0, -x.shape[1] % FRAME)).unflatten(1, (-1, FRAME))


class FrameDecoder(nn.Module):
    """LSTM from a code for each frame, [n, frames, code], to a beat, [n, length]."""

    def __init__(self, code: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.lstm = nn.LSTM(code, HIDDEN, batch_first=True)
        self.draw = nn.Linear(HIDDEN, FRAME)

    def forward(self, z: Tensor) -> Tensor:
        """Draw a beat, [n, length], from z, [n, frames, code]."""
        return self.draw(self.lstm(z)[0]).flatten(1)[:, : self.length]


class LstmVAE(nn.Module):
    """VAE with LSTM encoder and decoder (Park et al. 2018); the code is the same for all frames."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(FRAME, HIDDEN, batch_first=True)
        self.heads = nn.Linear(HIDDEN, 2 * LATENT)
        self.decoder = FrameDecoder(LATENT, length)

    def forward(self, x: Tensor, sample: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, latent mean and log variance."""
        read = frames(x)
        mean, log_variance = self.heads(self.encoder(read)[0][:, -1]).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if sample else mean
        return self.decoder(z[:, None].expand(-1, read.shape[1], -1)), mean, log_variance


def lstm_vae(points: Points, beta: float) -> Scored:
    """Score by the squared error of an LSTM-VAE: up to constants its log-likelihood (Park et al. 2018)."""
    seed_all(points.seed, 0)
    model = LstmVAE(points.train.shape[1])

    def loss(x: Tensor) -> Tensor:
        y, mean, log_variance = model(x)
        return beta_vae_loss(x, y, mean, log_variance, beta, 0.0).total

    curve = train(model, loss, points, "LSTM-VAE")
    scores = scored(lambda x: ((x - model(x, sample=False)[0]) ** 2).sum(dim=1), points.test)
    return Scored(scores, len(points.train), {"LSTM-VAE": curve}, cooldown=cooldown(points))


def deep_svdd(points: Points, width: float) -> Scored:
    """Score by the squared distance to the centre of a learned hypersphere (Ruff et al. 2018), one-class form.

    No layer has a bias, so that the network cannot answer the centre to everything; width: of its output.
    """
    seed_all(points.seed, 0)
    layers: list[nn.Module] = []
    for here, there in itertools.pairwise((1, 16, 32, 32)):
        convolve = nn.Conv1d(here, there, 5, stride=2, padding=2, bias=False)
        layers += [convolve, nn.BatchNorm1d(there, affine=False), nn.LeakyReLU()]
    length = -(-points.train.shape[1] // 8)
    model = nn.Sequential(
        nn.Unflatten(1, (1, -1)), *layers, nn.Flatten(), nn.Linear(32 * length, int(width), bias=False)
    )
    with torch.no_grad():
        centre = model(torch.from_numpy(points.train[:: max(1, len(points.train) // 2000)])).mean(dim=0)
    # a coordinate at zero could be met with zero weights
    centre = torch.where(centre.abs() < 0.1, torch.where(centre < 0, -0.1, 0.1), centre)

    def distance(x: Tensor) -> Tensor:
        return ((model(x) - centre) ** 2).sum(dim=1)

    curve = train(model, lambda x: distance(x).mean(), points, "Deep SVDD", weight_decay=1e-6)
    scores = scored(distance, points.test)
    return Scored(scores, len(points.train), {"Deep SVDD": curve}, cooldown=cooldown(points))
