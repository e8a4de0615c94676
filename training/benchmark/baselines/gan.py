"""f-AnoGAN: a Wasserstein GAN and an encoder into its latent space (Schlegl et al. 2019), as multilayer perceptrons.

AnoGAN (2017) searches the latent of every test point by gradient descent; its authors put an encoder in that place.
"""

import itertools

import torch
from torch import Tensor, nn

from training.benchmark.baselines import networks
from training.benchmark.baselines.points import Points, Scored
from training.train import seed_all

LATENT = 20
CRITIC_STEPS = 5  # for one of the generator (Gulrajani et al. 2017)
PENALTY = 10.0


def f_anogan(points: Points, learning_rate: float) -> Scored:
    """Score by the error of generator(encoder(x)) among the samples and among the critic's features (kappa = 1).

    learning_rate: of the GAN; the encoder has the rate that all have. The GAN's curve is the critic's estimate of the
    Wasserstein distance between held-out and generated points.
    """
    seed_all(points.seed, 0)
    length = points.train.shape[1]
    generator = _perceptron(LATENT, 128, 256, length)
    features, judge = _perceptron(length, 256, 128), nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(128, 1))
    encoder = _perceptron(length, 256, 128, LATENT)
    critic = nn.Sequential(features, judge)
    wgan = _train(generator, critic, points, learning_rate)

    def error(x: Tensor) -> Tensor:
        again = generator(encoder(x))
        return ((x - again) ** 2).mean(dim=1) + ((features(x) - features(again)) ** 2).mean(dim=1)

    curve = networks.train(encoder, lambda x: error(x).mean(), points, "f-AnoGAN, encoder")
    curves = {"WGAN": wgan, "encoder": curve}
    scores = networks.scored(error, points.test)
    return Scored(scores, len(points.train), curves, cooldown=networks.cooldown(points))


def _train(generator: nn.Module, critic: nn.Module, points: Points, learning_rate: float) -> list[float]:
    of_generator, of_critic = (
        torch.optim.Adam(one.parameters(), learning_rate, betas=(0.0, 0.9)) for one in (generator, critic)
    )
    held_out, curve = torch.from_numpy(points.held_out), []
    for _ in networks.epochs(points, [of_generator, of_critic], "f-AnoGAN, GAN"):
        for number, x in enumerate(networks.batches(points)):
            with torch.no_grad():
                made = generator(torch.randn(len(x), LATENT))
            value = critic(made).mean() - critic(x).mean() + PENALTY * _steepness(critic, x, made)
            of_critic.zero_grad()
            value.backward()
            of_critic.step()
            if number % CRITIC_STEPS == 0:
                value = -critic(generator(torch.randn(len(x), LATENT))).mean()
                of_generator.zero_grad()
                value.backward()
                of_generator.step()
        with torch.no_grad():
            made = generator(torch.randn(len(held_out), LATENT))
            curve.append(float(critic(held_out).mean() - critic(made).mean()))
    return curve


def _steepness(critic: nn.Module, x: Tensor, made: Tensor) -> Tensor:
    """How far the critic's gradient between real and made points is from length 1, squared, mean."""
    between = torch.lerp(x, made, torch.rand(len(x), 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for here, there in itertools.pairwise(widths):
        layers += [nn.Linear(here, there), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])
