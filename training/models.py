"""The paper's networks (table 3, figure 7): encoders and decoders of segments and of images, the beta-VAE around them.

What the paper leaves open, decided here once:
- Residual blocks hold two dilated causal convolutions (figure 7b, Bai et al. 2018); skip connections are summed
  before the residual addition, and the last time step is read, as in the keras-tcn package whose argument names
  table 3 uses. No weight normalisation: keras-tcn's default.
- 2,048 features become 512 channels x 4 steps: six layers of stride 2 then give 256 steps, cut to 187.
- The last layer is linear: a ReLU there would stop learning wherever it outputs zero.
- Latent size 10: with C = 25 nats about 11 dimensions carry something, however many there are (docs/training.md).
- Images: every convolution halves the sides, padded by one ("same"): 28, 14, 7; so 32 channels of 7 x 7 are the 1,568
  features that table 3 names, and two layers of stride 2 lead back to 28 x 28. The encoder's ReLU follows its last
  dense layer too. Loss, latent size and linear last layer are those of the segments; the paper names none for images.
- CIFAR-10 and Small-NORB: sides 32, 16, 8, 4, padded to halve and to double; so 128 channels of 4 x 4 are the 2,048
  features that table 3 names. ReLU follows batch normalisation, as in the decoder of segments. "Dropout (0.9)" and
  "(0.7)" are taken as the share that is kept, TensorFlow's `keep_prob` of the time: a tenth and three tenths are
  dropped. Small-NORB's last layer has one channel, as its input; table 3's three there must be CIFAR-10's.

Table 3 gives the TCN alone for segments. The CNN and LSTM encoders that the paper compares with it (figures 5, 16, 17)
are ours, conventional ones, with as many parameters as the TCN (181,376; CNN 1.4 % fewer, LSTM 0.9 % more):
- CNN: five convolutions of kernel 3 and stride 2 (187 samples become 6 steps), ReLU and dropout, then a dense layer.
- LSTM: two layers, the last state of the second, dropout, then a dense layer.
"""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgwatch.beats import RHYTHM, bedside_parts
from training.parameters import Parameters

DILATIONS = (1, 2, 4, 8, 16, 32)
KERNEL = 4
FILTERS = 64
DROPOUT = 0.05
IMAGE_SIDE = 28
IMAGE_FILTERS = 32
IMAGE_FEATURES = 128
DEEP_FEATURES = 256
DEEP_SIDE = 4  # of the last convolution's output
CNN_FILTERS = (32, 64, 128, 128, 128)
LSTM_HIDDEN = 120
BEDSIDE_HIDDEN = 128
ENCODED = 1000  # points at a time, where nobody tried more
EARLIEST = 4.0  # a beat half as long after the one before as usual
# of a typical beat's energy, what may be drawn beside it: about what half of the normal beats deviate by. Chosen
# on DS1, where .02 to .12 serve alike (docs/strangers.md)
MOST_DRAWN = 0.05


class ResidualBlock(nn.Module):
    """Two causal convolutions of one dilation, each with ReLU and dropout (figure 7b)."""

    def __init__(self, channels: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, filters, KERNEL)
        self.second = nn.Conv1d(filters, filters, KERNEL)
        self.match = nn.Conv1d(channels, filters, 1) if channels != filters else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, dilation: int, every: int = 1) -> tuple[Tensor, Tensor]:
        """x: [n, channels, t] -> residual output and skip connection, both [n, filters, ceil(t / every)].

        every: of the outputs, compute only each `every`-th, counted from the last.
        """
        offset = (x.shape[-1] - 1) % every
        y = self._convolve(self.first, x, dilation)
        y = self._convolve(self.second, y, dilation, offset, every)
        return functional.relu(self.match(x[..., offset::every]) + y), y

    def _convolve(self, conv: nn.Conv1d, x: Tensor, dilation: int, offset: int = 0, every: int = 1) -> Tensor:
        padded = functional.pad(x, ((KERNEL - 1) * dilation, 0))[..., offset:]  # causal: the past only
        return self.dropout(
            functional.relu(functional.conv1d(padded, conv.weight, conv.bias, every, dilation=dilation))
        )


class TCN(nn.Module):
    """Temporal convolutional network read at its last time step: [n, t] or [n, channels, t] -> [n, filters].

    aligned: compute only what the last step depends on. A layer of dilation d feeds the last step through every d-th
    of its steps, counted from the end; so each block runs with dilation 1 on that grid and hands on only the steps of
    the next block's. Exact, and several times faster (`make bench`).
    """

    def __init__(
        self, filters: int = FILTERS, dropout: float = DROPOUT, aligned: bool = True, channels: int = 1
    ) -> None:
        super().__init__()
        inputs = (channels,) + (filters,) * (len(DILATIONS) - 1)
        self.blocks = nn.ModuleList(ResidualBlock(c, filters, dropout) for c in inputs)
        self.aligned = aligned

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.dim() == 3 else x[:, None, :]
        skips = []
        for number, (block, dilation) in enumerate(zip(self.blocks, DILATIONS, strict=True)):
            if not self.aligned:
                x, skip = block(x, dilation)
            elif number + 1 < len(DILATIONS):
                x, skip = block(x, 1, every=DILATIONS[number + 1] // dilation)
            else:
                x, skip = block(x, 1, every=x.shape[-1])
            skips.append(skip[..., -1])
        return torch.stack(skips).sum(dim=0)


class SegmentConvolution(nn.Module):
    """CNN encoder of segments: [n, length] -> [n, filters]."""

    def __init__(self, length: int, filters: int = FILTERS, dropout: float = DROPOUT) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for here, there in itertools.pairwise((1, *CNN_FILTERS)):
            layers += [nn.Conv1d(here, there, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(dropout)]
            length = -(-length // 2)
        self.convolve = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(CNN_FILTERS[-1] * length, filters), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolve(x[:, None, :]).flatten(1))


class SegmentLSTM(nn.Module):
    """LSTM encoder of segments, read at its last time step: [n, length] -> [n, filters]."""

    def __init__(self, filters: int = FILTERS, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, LSTM_HIDDEN, num_layers=2, batch_first=True)
        # dropout here alone: cuDNN keeps the random state of one between layers to itself, out of a CUDA graph's reach
        self.dense = nn.Sequential(nn.Dropout(dropout), nn.Linear(LSTM_HIDDEN, filters), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # torch has no bfloat16 LSTM on many processors
            states = self.lstm(x[:, :, None])[0]
        return self.dense(states[:, -1])


class BedsideEncoder(nn.Module):
    """TCN over deviation and typical beat, joined with RR and pauses: bedside input [n, length] -> [n, filters].

    leads: of the input; the beat, and the typical beat, of one stand behind those of the other, all in channels of
    their own.
    """

    def __init__(self, filters: int = FILTERS, dropout: float = DROPOUT, leads: int = 1) -> None:
        super().__init__()
        self.leads = leads
        self.tcn = TCN(filters, dropout, channels=2 * leads)
        self.join = nn.Sequential(nn.Linear(filters + RHYTHM, filters), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        beat, typical, rhythm = bedside_parts(x)
        channels = [part.unflatten(1, (self.leads, -1)) for part in (beat - typical, typical)]
        h = self.tcn(torch.cat(channels, dim=1))
        return self.join(torch.cat([h, rhythm], dim=1))


class BedsideDecoder(nn.Module):
    """[n, latent] -> deviation from the typical beat, RR ratio and pauses, [n, samples + 2]; samples: of all leads."""

    def __init__(self, latent: int, samples: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            nn.Linear(latent, BEDSIDE_HIDDEN),
            nn.ReLU(),
            nn.Linear(BEDSIDE_HIDDEN, BEDSIDE_HIDDEN),
            nn.ReLU(),
            nn.Linear(BEDSIDE_HIDDEN, samples + RHYTHM),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.dense(z)


class Deconvolution(nn.Module):
    """Table 3's decoder of segments: [n, latent] -> [n, length]."""

    def __init__(self, latent: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.dense = nn.Sequential(
            nn.Linear(latent, 256),
            nn.ReLU(),
            nn.Linear(256, 384),
            nn.ReLU(),
            nn.Linear(384, 2048),
            nn.BatchNorm1d(2048),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        channels: Sequence[int] = (512, 64, 64, 64, 32, 32, 1)
        for here, there in itertools.pairwise(channels):
            layers += [nn.ConvTranspose1d(here, there, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
        self.deconvolve = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> Tensor:
        return self.deconvolve(self.dense(z).view(-1, 512, 4))[:, 0, : self.length]


class ImageConvolution(nn.Module):
    """Table 3's encoder of MNIST and Fashion-MNIST: [n, 784] -> [n, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(1, IMAGE_FILTERS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(IMAGE_FILTERS, IMAGE_FILTERS, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.dense = nn.Sequential(
            nn.Linear(IMAGE_FILTERS * 7 * 7, IMAGE_FEATURES),
            nn.ReLU(),
            nn.Linear(IMAGE_FEATURES, IMAGE_FEATURES),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolve(x.view(-1, 1, IMAGE_SIDE, IMAGE_SIDE)).flatten(1))


class ImageDeconvolution(nn.Module):
    """Table 3's decoder of MNIST and Fashion-MNIST: [n, latent] -> [n, 784]."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            nn.Linear(latent, IMAGE_FEATURES),
            nn.ReLU(),
            nn.Linear(IMAGE_FEATURES, IMAGE_FILTERS * 7 * 7),
            nn.ReLU(),
        )
        self.deconvolve = nn.Sequential(
            nn.ConvTranspose2d(IMAGE_FILTERS, IMAGE_FILTERS, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(IMAGE_FILTERS, 1, 3, stride=2, padding=1, output_padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.deconvolve(self.dense(z).view(-1, IMAGE_FILTERS, 7, 7)).flatten(1)


class DeepImageConvolution(nn.Module):
    """Table 3's encoder of CIFAR-10 and Small-NORB: [n, channels * 32 * 32] -> [n, 256].

    filters, kernels: of the three convolutions; dropout: share that is dropped.
    """

    def __init__(self, channels: int, filters: Sequence[int], kernels: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = []
        for (here, there), kernel in zip(itertools.pairwise((channels, *filters)), kernels, strict=True):
            layers += [nn.Conv2d(here, there, kernel, stride=2, padding=kernel // 2), nn.BatchNorm2d(there), nn.ReLU()]
        self.convolve = nn.Sequential(*layers)
        layers = []
        for size in (filters[-1] * DEEP_SIDE**2, DEEP_FEATURES):
            layers += [nn.Linear(size, DEEP_FEATURES), nn.Dropout(dropout), nn.BatchNorm1d(DEEP_FEATURES), nn.ReLU()]
        self.dense = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        side = DEEP_SIDE << 3
        return self.dense(self.convolve(x.view(-1, self.channels, side, side)).flatten(1))


class DeepImageDeconvolution(nn.Module):
    """Table 3's decoder of CIFAR-10 and Small-NORB: [n, latent] -> [n, channels * 32 * 32].

    normalise: batch normalisation between the deconvolutions, which table 3 has for CIFAR-10 alone.
    """

    def __init__(self, latent: int, channels: int, normalise: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for here, there in itertools.pairwise((latent, DEEP_FEATURES, DEEP_FEATURES, 128 * DEEP_SIDE**2)):
            layers += [nn.Linear(here, there), nn.BatchNorm1d(there), nn.ReLU()]
        self.dense = nn.Sequential(*layers)
        layers = []
        for here, there, kernel in ((128, 128, 5), (128, 64, 5), (64, channels, 3)):
            layers.append(nn.ConvTranspose2d(here, there, kernel, stride=2, padding=kernel // 2, output_padding=1))
            layers += [*((nn.BatchNorm2d(there),) if normalise else ()), nn.ReLU()]
        self.deconvolve = nn.Sequential(*layers[: -2 if normalise else -1])

    def forward(self, z: Tensor) -> Tensor:
        return self.deconvolve(self.dense(z).view(-1, 128, DEEP_SIDE, DEEP_SIDE)).flatten(1)


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
        made = SegmentLSTM(dropout=dropout)
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
