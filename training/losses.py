"""The beta-VAE objective with capacity (eq. 1; Burgess et al. 2018)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """Means over a batch: total = reconstruction + beta * |kl - capacity|."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def beta_vae_loss(
    x: Tensor, y: Tensor, mean: Tensor, log_variance: Tensor, beta: float, capacity: float | Tensor
) -> Losses:
    """Return the negative of eq. 1, to be minimised.

    x, y: [n, length], input and reconstruction. The reconstruction term is the squared error summed over the samples:
    log p(x|z) of a Gaussian with variance 1/2, up to a constant. capacity: C, nats.
    """
    reconstruction = ((x - y) ** 2).sum(dim=1).mean()
    kl = (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(dim=1).mean()
    return Losses(reconstruction + beta * torch.abs(kl - capacity), reconstruction, kl)


def capacity(step: int, steps: int, final: float) -> float:
    """Return C at a step: it grows from zero, linearly, to `final` at half of the training (Burgess et al. 2018)."""
    return final * min(1.0, step / max(1, steps // 2))
