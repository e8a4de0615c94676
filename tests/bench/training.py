"""A training step: the encoder as the paper draws it, against the one that computes what its last step depends on."""

import statistics
import time

import torch

from tests.bench.measure import Figure
from tests.bench.stages import sample
from training.losses import beta_vae_loss
from training.models import BetaVAE
from training.parameters import Parameters

STEPS = 8


def measure() -> list[Figure]:
    """Time steps of both in turns, so that other load meets both alike."""
    parameters = Parameters()
    x = torch.from_numpy(sample(parameters.batch))
    models = {aligned: BetaVAE(x.shape[1], parameters.latent, aligned=aligned).train() for aligned in (False, True)}
    optimizers = {
        aligned: torch.optim.Adam(model.parameters(), lr=parameters.learning_rate) for aligned, model in models.items()
    }
    wall_s: dict[bool, list[float]] = {False: [], True: []}
    cpu_s: dict[bool, list[float]] = {False: [], True: []}
    for step in range(STEPS + 1):
        for aligned, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            losses = beta_vae_loss(x, *model(x), beta=parameters.beta, capacity=1.0)
            optimizers[aligned].zero_grad()
            losses.total.backward()
            optimizers[aligned].step()
            if step:  # the first one allocates
                wall_s[aligned].append(time.perf_counter() - wall)
                cpu_s[aligned].append(time.process_time() - cpu)
    plain, aligned = (statistics.median(wall_s[which]) for which in (False, True))
    cpu_ratio = statistics.median(cpu_s[False]) / statistics.median(cpu_s[True])
    return [
        Figure(
            "training step, plain",
            plain * 1e3,
            "ms",
            note=f"batch {parameters.batch}, {torch.get_num_threads()} threads",
        ),
        Figure("training step, stride-aligned", aligned * 1e3, "ms"),
        Figure("plain / stride-aligned", plain / aligned, "x", at_least=2, note=f"{cpu_ratio:.1f} x in CPU time"),
    ]
