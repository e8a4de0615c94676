"""The paper's networks (table 3, figure 7): encoders and decoders of segments, of images and of bedside inputs.

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
- LSTM: two layers, the last state of the second, dropout, then a dense layer; it begins with memories as long as a
  segment.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgwatch.beats import RHYTHM, bedside_parts

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

    def __init__(self, length: int, filters: int = FILTERS, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, LSTM_HIDDEN, num_layers=2, batch_first=True)
        _remember(self.lstm, length)
        # dropout here alone: cuDNN keeps the random state of one between layers to itself, out of a CUDA graph's reach
        self.dense = nn.Sequential(nn.Dropout(dropout), nn.Linear(LSTM_HIDDEN, filters), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # torch has no bfloat16 LSTM on many processors
            states = self.lstm(x[:, :, None])[0]
        return self.dense(states[:, -1])


@torch.no_grad()
def _remember(lstm: nn.LSTM, steps: int) -> None:
    """Let an LSTM begin with memories of 1 to `steps` steps ("chrono" initialisation, Tallec & Ollivier 2018).

    With torch's own biases a step halves what is remembered, and nothing of a QRS is left at the segment's end: such an
    encoder learned nothing in 41,000 steps (docs/benchmark).
    """
    hidden = lstm.hidden_size
    for name, bias in lstm.named_parameters():
        if name.startswith("bias"):  # of the gates: input, forget, cell, output
            bias.zero_()
        if name.startswith("bias_ih"):
            forget = torch.log(1 + (steps - 2) * torch.rand(hidden))
            bias[hidden : 2 * hidden], bias[:hidden] = forget, -forget


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
