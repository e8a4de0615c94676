"""GAN-AD: an LSTM GAN whose latents are searched by gradient descent for every test point (Li et al. 2018).

As in its authors' code of MAD-GAN (2019, github.com/LiDan456/MAD-GANs): latents and logits for each frame, their
number, both terms of the score, the rate of the search. Other than there:

- frames of 11 samples and 64 units, as our LSTM-VAE has them (there single steps and 100);
- both networks learn by Adam, in turn (there the discriminator by plain gradient descent and the generator three times
  as often: within our epochs all that it made came out alike);
- latents start at zero, and Adam searches those of the least squared error in few steps (there random ones, RMSprop,
  likeness under a Gaussian kernel, up to 1,000 steps for each point alone);
- each term in units of its deviation on held-out points, as their spreads are not alike, and half of each (there both
  plain, .2 of the residual).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.benchmark.baselines import networks
from training.benchmark.baselines.points import Points, Scored
from training.train import seed_all

LATENT = 15  # a frame
LAMBDA = 0.5  # share of the residual
SEARCH_STEPS = 30  # for time; more are better, it seems (docs/benchmark/choices.md)
SEARCH_RATE = 0.1
AT_ONCE = 250  # points; a search of 1000 takes half as long again for each


class Discriminator(nn.Module):
    """LSTM from a beat, [n, length], to the logits that its frames are real, [n, frames]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(networks.FRAME, networks.HIDDEN, batch_first=True)
        self.judge = nn.Linear(networks.HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of x, [n, length], by frame: [n, frames]."""
        return self.judge(self.lstm(networks.frames(x))[0]).squeeze(2)


def gan_ad(points: Points, learning_rate: float) -> Scored:
    """Score by residual and discrimination, each in units of its standard deviation on held-out points.

    Residual: mean absolute difference from what the generator makes of the best latents found; discrimination: mean
    probability that a frame is made. learning_rate: of both networks; the curve is the discriminator's loss on
    held-out and made points.
    """
    seed_all(points.seed, 0)
    generator = nn.Sequential(networks.FrameDecoder(LATENT, points.train.shape[1]), nn.Sigmoid())
    discriminator = Discriminator()
    curve = _train(generator, discriminator, points, learning_rate)
    generator.requires_grad_(False)  # the search asks for the gradient of latents alone

    def in_deviations(term: Callable[[Tensor], Tensor]) -> np.ndarray:
        test, held_out = (networks.scored(term, one, AT_ONCE) for one in (points.test, points.held_out))
        return test / held_out.std()

    residual = in_deviations(lambda x: _residual(generator, x))
    discrimination = in_deviations(lambda x: torch.sigmoid(-discriminator(x)).mean(dim=1))
    scores = LAMBDA * residual + (1 - LAMBDA) * discrimination
    note = f"{SEARCH_STEPS} search steps"
    return Scored(scores, len(points.train), {"GAN": curve}, note, networks.cooldown(points))


def _train(generator: nn.Module, discriminator: nn.Module, points: Points, learning_rate: float) -> list[float]:
    of_generator, of_discriminator = (
        # the usual momentum of .9 lets the two chase each other (Radford et al. 2016)
        torch.optim.Adam(one.parameters(), learning_rate, betas=(0.5, 0.999))
        for one in (generator, discriminator)
    )

    def loss(x: Tensor, made: Tensor) -> Tensor:
        return (softplus(-discriminator(x)) + softplus(discriminator(made))).mean()

    held_out, curve = torch.from_numpy(points.held_out), []
    for _ in networks.epochs(points, [of_generator, of_discriminator], "GAN-AD"):
        for x in networks.batches(points):
            made = generator(_latents(x))
            value = loss(x, made.detach())
            of_discriminator.zero_grad()
            value.backward()
            of_discriminator.step()
            value = softplus(-discriminator(made)).mean()
            of_generator.zero_grad()
            value.backward()
            of_generator.step()
        with torch.no_grad():
            curve.append(float(loss(held_out, generator(_latents(held_out)))))
    return curve


def _latents(x: Tensor) -> Tensor:
    """Draw latents for as many points, float32[n, frames, LATENT]."""
    return torch.randn(*networks.frames(x).shape[:2], LATENT)


@torch.enable_grad()
def _residual(generator: nn.Module, x: Tensor) -> Tensor:
    """Return how far points are from what the best latents found make, float32[n]; from latents of zero.

    Adam scales every gradient by itself, so that points searched at once do not change each other's way.
    """
    z = torch.zeros_like(_latents(x)).requires_grad_()
    optimizer = torch.optim.Adam([z], SEARCH_RATE)
    for _ in range(SEARCH_STEPS):
        error = ((x - generator(z)) ** 2).sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return (x - generator(z)).detach().abs().mean(dim=1)
