"""The beta-VAE around an encoder and a decoder, the models that parameters name, and how points are encoded."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from ecgwatch.beats import RHYTHM, bedside_parts
from training.networks import (
    DEEP_FEATURES,
    DROPOUT,
    FILTERS,
    IMAGE_FEATURES,
    TCN,
    BedsideDecoder,
    BedsideEncoder,
    Deconvolution,
    DeepImageConvolution,
    DeepImageDeconvolution,
    ImageConvolution,
    ImageDeconvolution,
    SegmentConvolution,
    SegmentLSTM,
)
from training.parameters import MOST_DRAWN, Parameters

ENCODED = 1000  # points at a time, where nobody tried more
EARLIEST = 4.0  # of the RR ratio: about that of a beat after half the usual interval in a regular rhythm


class BetaVAE(nn.Module):
    """beta-VAE around an encoder and a decoder; x is [n, length].

    encoder: [n, length] -> [n, features]; mean, log_variance: [n, features] -> [n, latent]; decoder: back to x.
    """

    def __init__(
        self,
        encoder: TCN | SegmentConvolution | SegmentLSTM | ImageConvolution | DeepImageConvolution | BedsideEncoder,
        mean: nn.Linear,
        log_variance: nn.Linear,
        decoder: Deconvolution | ImageDeconvolution | DeepImageDeconvolution | BedsideDecoder,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = mean
        self.log_variance = log_variance
        self.decoder = decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), both [n, latent]."""
        h = self.encoder(x)
        return self.mean(h), self.log_variance(h)

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction of x, [n, length], from z, [n, latent]."""
        return self.decoder(z)

    def draw(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction that NSE is taken of: what is decoded."""
        return self.decode(z, x)

    def energy(self, x: Tensor) -> Tensor:
        """Return what NSE divides by, [n]: the energy of x (eq. 3)."""
        return (x * x).sum(dim=1)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return a reconstruction through a sampled z (algorithm 1), mean and log variance.

        seen: what the encoder sees in the place of x.
        """
        mean, log_variance = self.encode(x if seen is None else seen)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decode(z, x), mean, log_variance


class BedsideVAE(BetaVAE):
    """beta-VAE that sees the typical beat: the beat is the typical beat plus what is decoded.

    So NSE (eq. 3) keeps its meaning: the error is not divided by the energy of a deviation that is next to nothing. It
    is divided by what the energy would be if the beat were typical. By its own energy a large ectopic beat would be at
    most 1, as is a small noisy one. And no more is drawn of a deviation than a normal beat has: of what is ectopic the
    decoder could draw a part, although it has learned normal beats alone.
    """

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction of x, [n, length], from z, [n, latent]: x's typical beat and what is decoded."""
        return self._beside_typical(self.decoder(z), x)

    def draw(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction that NSE is taken of, with at most MOST_DRAWN of the typical beat's energy."""
        decoded, typical = self.decoder(z), bedside_parts(x)[1]
        room = MOST_DRAWN * (typical * typical).sum(dim=1, keepdim=True)
        drawn = (decoded * decoded).sum(dim=1, keepdim=True).clamp_min(1e-12)
        return self._beside_typical(decoded * (room / drawn).clamp_max(1).sqrt(), x)

    def energy(self, x: Tensor) -> Tensor:
        """Return what NSE divides by, [n]: the energy that x would have if the beat were typical."""
        typical = bedside_parts(x)[1]
        return 2 * (typical * typical).sum(dim=1)

    def _beside_typical(self, decoded: Tensor, x: Tensor) -> Tensor:
        samples = decoded.shape[1] - RHYTHM
        typical = bedside_parts(x)[1]
        return torch.cat([typical + decoded[:, :samples], typical, decoded[:, samples:]], dim=1)


# Python makes the parts in the order written here: the same seed gives the same weights.


def segment_model(
    length: int = 187, latent: int = 10, dropout: float = DROPOUT, aligned: bool = True, encoder: str = "tcn"
) -> BetaVAE:
    """Make the model of heartbeats; encoder: tcn, cnn or lstm; aligned: of the TCN."""
    made: TCN | SegmentConvolution | SegmentLSTM
    if encoder == "cnn":
        made = SegmentConvolution(length, dropout=dropout)
    elif encoder == "lstm":
        made = SegmentLSTM(length, dropout=dropout)
    else:
        made = TCN(dropout=dropout, aligned=aligned)
    return BetaVAE(
        made,
        nn.Linear(FILTERS, latent),
        nn.Linear(FILTERS, latent),
        Deconvolution(latent, length),
    )


def image_model(latent: int = 10) -> BetaVAE:
    """Make the model of MNIST and Fashion-MNIST."""
    return BetaVAE(
        ImageConvolution(),
        nn.Linear(IMAGE_FEATURES, latent),
        nn.Linear(IMAGE_FEATURES, latent),
        ImageDeconvolution(latent),
    )


def cifar_model(latent: int = 10) -> BetaVAE:
    """Make the model of CIFAR-10."""
    return BetaVAE(
        DeepImageConvolution(3, filters=(64, 128, 128), kernels=(3, 5, 5), dropout=0.1),
        nn.Linear(DEEP_FEATURES, latent),
        nn.Linear(DEEP_FEATURES, latent),
        DeepImageDeconvolution(latent, 3, normalise=True),
    )


def norb_model(latent: int = 10) -> BetaVAE:
    """Make the model of Small-NORB."""
    return BetaVAE(
        DeepImageConvolution(1, filters=(32, 64, 128), kernels=(3, 3, 3), dropout=0.3),
        nn.Linear(DEEP_FEATURES, latent),
        nn.Linear(DEEP_FEATURES, latent),
        DeepImageDeconvolution(latent, 1, normalise=False),
    )


def bedside_model(length: int = 190, latent: int = 4, filters: int = FILTERS, leads: int = 1) -> BetaVAE:
    """Make the model of heartbeats relative to their patient; length: of an input with all its leads."""
    samples = (length - RHYTHM) // 2
    return BedsideVAE(
        BedsideEncoder(filters, leads=leads),
        nn.Linear(filters, latent),
        nn.Linear(filters, latent),
        BedsideDecoder(latent, samples),
    )


def with_made_up_ectopics(x: Tensor, share: float, fs_hz: float, leads: int = 1) -> Tensor:
    """Return bedside inputs, [n, length], a share of them with an ectopic beat's waves added, and early.

    Two Gaussian waves of random place, width (15 to 75 ms) and height (up to .8 of the typical beat's amplitude), about
    as wide as waves of the ECG are; an RR ratio lower by up to EARLIEST. The encoder sees them and the beat to be drawn
    has none (a denoising autoencoder, Vincent et al. 2008): so the decoder learns to draw normal beats, whatever it is
    shown. Of several leads a wave has the same place and width in all, and a height of its own in each.
    """
    count, samples = len(x), bedside_parts(x)[0].shape[1] // leads
    at_s = torch.arange(samples, device=x.device) / fs_hz
    waves = torch.zeros(count, leads, samples, device=x.device)
    for _ in range(2):
        centre, width, height = (torch.rand(count, numbers, device=x.device) for numbers in (1, 1, leads))
        wave = torch.exp(-0.5 * ((at_s - at_s[-1] * (0.2 + 0.6 * centre)) / (0.015 + 0.06 * width)) ** 2)
        waves = waves + 0.8 * (2 * height - 1)[:, :, None] * wave[:, None, :]
    added = waves.flatten(1)
    chosen = torch.rand(count, 1, device=x.device) < share
    early = -EARLIEST * torch.rand(count, 1, device=x.device)
    changed = torch.cat([added, torch.zeros_like(added), early, torch.zeros_like(early)], dim=1)
    return x + changed * chosen


def make(parameters: Parameters, length: int) -> BetaVAE:
    """Make the model that parameters name; length: of its inputs."""
    if parameters.dataset != "arrhythmia":
        of_images = {"cifar-10": cifar_model, "small-norb": norb_model}
        model = of_images.get(parameters.dataset, image_model)(parameters.latent)
    elif parameters.contract == "bedside":
        model = bedside_model(length, parameters.latent, parameters.filters, parameters.leads)
    else:
        model = segment_model(length, parameters.latent, encoder=parameters.encoder)
    if parameters.initial == "glorot":
        _glorot(model)
    return model


def _glorot(model: nn.Module) -> None:
    """Draw the weights of layers uniformly (Glorot & Bengio 2010), biases zero: Keras's default.

    Variance 2 / (inputs + outputs) of a weight, where torch's default has 1 / (3 inputs).
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def exact() -> AbstractContextManager[None]:
    """Switch TF32 off for a while: its products, torch's default in a GPU's convolutions and LSTMs, keep 10 bits."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


@torch.no_grad()
def unit_latents(model: BetaVAE, x: Tensor, batch: int = ENCODED) -> Tensor:
    """Put each latent dimension into units of its standard deviation over x, [n, length], in the weights.

    Reconstructions stay as they are, and so do sampled ones; only distances between latents change. batch: of x, on the
    model's device at a time. Returns the units, [latent]: what a latent has to be multiplied with to be what it was.
    """
    training = model.training
    model.eval()
    on = model.mean.weight.device
    with exact():
        deviation = torch.cat([model.encode(part.to(on))[0] for part in x.split(batch)]).std(dim=0)
    for head in (model.mean.weight, model.mean.bias):
        head.div_(deviation if head.dim() == 1 else deviation[:, None])
    model.log_variance.bias.sub_(2 * deviation.log())
    first = model.decoder.dense[0]
    assert isinstance(first, nn.Linear)
    first.weight.mul_(deviation)
    model.train(training)
    return deviation


class Serving(nn.Module):
    """What is exported: x -> latent mean and NSE (eq. 3); through the mean, not a sample, so that a score repeats."""

    def __init__(self, model: BetaVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean, [n, latent], and NSE, [n], of x, [n, length]."""
        mean, _ = self.model.encode(x)
        error = x - self.model.draw(mean, x)
        return mean, (error * error).sum(dim=1) / self.model.energy(x).clamp_min(1e-12)


@torch.no_grad()
def encoded(model: BetaVAE, x: np.ndarray, batch: int = ENCODED) -> tuple[np.ndarray, np.ndarray]:
    """Return latent means float32[n, latent] and NSE float32[n] of points float32[n, length], where the model lies."""
    serving, on = Serving(model).eval(), model.mean.weight.device
    with exact():
        parts = [serving(part.to(on)) for part in torch.from_numpy(x).split(batch)]
    mean, nse = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return mean, nse
