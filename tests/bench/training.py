"""A training step: the encoder as the paper draws it, against the one that computes what its last step depends on."""

import statistics
import time

import torch

from tests.bench.measure import Figure
from tests.bench.stages import sample
from training.losses import beta_vae_loss
from training.models import segment_model
from training.parameters import Parameters

STEPS = 8


def measure() -> list[Figure]:
    """Time steps of both in turns, on one core: torch's threads wait for each other on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain, aligned = _steps()
    finally:
        torch.set_num_threads(threads)
    return [
        Figure("training step, plain", plain, "ms CPU", note=f"batch {Parameters().batch}, one thread"),
        Figure("training step, stride-aligned", aligned, "ms CPU"),
        Figure("plain / stride-aligned", plain / aligned, "x", at_least=2),
    ]


def _steps() -> tuple[float, float]:
    """Return the CPU time of a step, plain and stride-aligned, milliseconds."""
    parameters = Parameters()
    x = torch.from_numpy(sample(parameters.batch))
    models = {
        aligned: segment_model(x.shape[1], parameters.latent, aligned=aligned).train() for aligned in (False, True)
    }
    optimizers = {
        aligned: torch.optim.Adam(model.parameters(), lr=parameters.learning_rate, fused=True)
        for aligned, model in models.items()
    }
    used_ms: dict[bool, list[float]] = {False: [], True: []}
    for step in range(STEPS + 1):
        for aligned, model in models.items():
            begin = time.process_time()
            losses = beta_vae_loss(x, *model(x), beta=parameters.beta, capacity=1.0)
            optimizers[aligned].zero_grad()
            losses.total.backward()
            optimizers[aligned].step()
            if step:  # the first one allocates
                used_ms[aligned].append((time.process_time() - begin) * 1e3)
    return statistics.median(used_ms[False]), statistics.median(used_ms[True])
