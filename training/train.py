"""The training loop: epochs and checkpoints.

A run that is stopped anywhere and started again ends with the same weights as one that was not: a checkpoint holds
model and optimiser at the end of an epoch, and every epoch draws its own random numbers from (seed, epoch).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ecgwatch.beats import Bedside
from ecgwatch.errors import ConfigError, DataError
from training.losses import beta_vae_loss, capacity
from training.models import ENCODED, BetaVAE, Serving, make, with_made_up_ectopics
from training.parameters import Parameters
from training.run_folder import processor
from training.text import write_atomically

COOLING = 0.1  # share of the learning rate in the cool-down
WATCHED = 2000  # beats or images at least, where there are, that the loss printed beside the training loss is of
TRAINED = "trained"  # a checkpoint's metadata: losses of each epoch, and the machines


def machine(on: torch.device) -> str:
    """Return the name of what computes."""
    return torch.cuda.get_device_name(on) if on.type == "cuda" else processor()


def device(wanted: str = "auto") -> torch.device:
    """Choose CUDA where there is one, else the CPU.

    Raises ConfigError when `wanted` is cuda and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA GPU; use --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def fit(
    x_train: np.ndarray,
    x_watch: np.ndarray,
    parameters: Parameters,
    folder: Path,
    on: torch.device,
    stop_after: int | None = None,
    capture: bool = True,
) -> BetaVAE:
    """Train a beta-VAE, from the folder's checkpoint where there is one.

    x_train: float32[n, length], normal beats or images; or larger square images, of which every epoch takes other
    crops. x_watch: float32[m, length], normal ones that only a loss is printed of; no choice depends on them.
    stop_after: end after so many epochs in all, as an interruption would. capture: on a GPU, take a step as a CUDA
    graph. Returns the model in evaluation mode, on the CPU. Raises DataError where x_train is less than a
    batch, or the loss is no number.
    """
    if len(x_train) < parameters.batch:
        raise DataError(f"{len(x_train)} normal beats or images train here, and a batch is {parameters.batch}")
    seed_all(parameters.seed, 0)
    length = x_watch.shape[1]
    model, optimizer = begin(parameters, length, on)
    epochs = parameters.epochs + parameters.cooldown
    losses, machines = _resume(folder, model, optimizer)
    if done := len(losses):
        print(f"continuing {folder} after epoch {done} of {epochs}")
    machines = list(dict.fromkeys([*machines, machine(on)]))
    data = torch.from_numpy(x_train).to(on)
    watch = torch.from_numpy(x_watch[:: max(1, len(x_watch) // WATCHED)]).to(on)
    steps = len(data) // parameters.batch * parameters.epochs
    last = epochs if stop_after is None else min(stop_after, epochs)
    first = random_crops(data[: parameters.batch], length)
    step = make_step(model, optimizer, parameters, first, capture and on.type == "cuda")
    with tqdm(total=last, initial=done, unit="epoch", desc="training") as bar:
        for epoch in range(done, last):
            cooling = epoch >= parameters.epochs
            _set_rate(optimizer, parameters.learning_rate * (COOLING if cooling else 1))
            row = run_epoch(model, step, data, length, parameters, epoch, steps, bar.set_postfix)
            if not all(map(math.isfinite, row.values())):
                raise DataError(f"{folder}: the loss is no number after epoch {epoch + 1} of {epochs}: training failed")
            row["watched_nse"] = mean_nse(model, watch)
            losses.append({"epoch": epoch + 1, **row})
            _save(folder, model, optimizer, losses, machines)
            bar.set_postfix({key: f"{value:.4g}" for key, value in row.items()})
            bar.update()
    return model.cpu().eval()


def begin(parameters: Parameters, length: int, on: torch.device) -> tuple[BetaVAE, torch.optim.Adam]:
    """Return a new model and its optimiser; length: of its inputs."""
    model = make(parameters, length).to(on)
    rate = torch.tensor(parameters.learning_rate, device=on) if on.type == "cuda" else parameters.learning_rate
    return model, torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=on.type == "cuda")


Step = Callable[[torch.Tensor, float | torch.Tensor], torch.Tensor]  # a batch and C -> its losses, float32[3]


def make_step(
    model: BetaVAE, optimizer: torch.optim.Optimizer, parameters: Parameters, x: torch.Tensor, capture: bool
) -> Step:
    """Return what trains on one batch; x: a batch, [batch, length].

    capture: record it once on the GPU and replay it, since its hundreds of kernels take longer to start than to run.
    """

    def step(x: torch.Tensor, c: float | torch.Tensor) -> torch.Tensor:
        shown = parameters.denoise, Bedside().fs_hz, parameters.leads
        seen = with_made_up_ectopics(x, *shown) if parameters.denoise else None
        with torch.autocast(x.device.type, torch.bfloat16, enabled=parameters.precision == "bfloat16"):
            outputs = model(x, seen)
        y, mean, log_variance = (output.float() for output in outputs)
        losses = beta_vae_loss(x, y, mean, log_variance, parameters.beta, c)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        return torch.stack([part.detach() for part in losses])

    return _captured(model, optimizer, step, x) if capture else step


def _captured(model: BetaVAE, optimizer: torch.optim.Optimizer, step: Step, x: torch.Tensor) -> Step:
    """Capture a step as a CUDA graph; weights, moments and running means are afterwards what they were.

    Losses are close to those without a graph and not the same: `python -m tests.bench.cuda` compares them.
    """
    model.train()
    batch, c = x.clone(), torch.zeros((), device=x.device)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = not optimizer.state
    moments = {key: {name: t.clone() for name, t in state.items()} for key, state in optimizer.state.items()}
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is allocated and chosen at the first calls cannot be captured
        for _ in range(3):
            step(batch, c)
    torch.cuda.current_stream().wait_stream(aside)
    optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step(batch, c)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(kept[name])
        for key, state in optimizer.state.items():
            for name, tensor in state.items():
                tensor.zero_() if fresh else tensor.copy_(moments[key][name])

    def replay(x: torch.Tensor, capacity: float | torch.Tensor) -> torch.Tensor:
        batch.copy_(x)
        c.fill_(capacity)
        graph.replay()
        return losses

    return replay


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # where a captured step reads it
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def run_epoch(
    model: BetaVAE,
    step: Step,
    data: torch.Tensor,
    length: int,
    parameters: Parameters,
    epoch: int,
    steps: int,
    show: Callable[..., Any],
) -> dict[str, float]:
    """One pass over the data; a last incomplete batch is left out (batch normalisation wants full ones)."""
    seed_all(parameters.seed, epoch + 1)
    model.train()
    sums = torch.zeros(3, device=data.device)
    c = 0.0
    batches = len(data) // parameters.batch
    order = torch.randperm(len(data), device="cpu").to(data.device)
    data = random_crops(data, length)
    for number, rows in enumerate(_batches(order, parameters.batch, batches)):
        c = capacity(epoch * batches + number, steps, parameters.capacity)
        losses = step(data[rows], c)
        sums += losses
        if number % 20 == 0:
            show({"step": f"{number}/{batches}", "loss": f"{losses[0].item():.4g}"})
    total, reconstruction, kl = (sums.cpu() / batches).tolist()
    return {"total": total, "reconstruction": reconstruction, "kl": kl, "capacity": c}


def _batches(order: torch.Tensor, size: int, count: int) -> Iterator[torch.Tensor]:
    for number in range(count):
        yield order[number * size : (number + 1) * size]


def random_crops(x: torch.Tensor, length: int) -> torch.Tensor:
    """Return of each square image, [n, side * side], a random square of `length` pixels; x itself if no larger."""
    if x.shape[1] == length:
        return x
    side, cut = math.isqrt(x.shape[1]), math.isqrt(length)
    windows = x.view(-1, side, side).unfold(1, cut, 1).unfold(2, cut, 1)  # a view: every place, no copy
    top, left = torch.randint(side - cut + 1, (2, len(x)), device="cpu").to(x.device)
    return windows[torch.arange(len(x), device=x.device), top, left].flatten(1)


@torch.no_grad()
def mean_nse(model: BetaVAE, x: torch.Tensor) -> float:
    """Return the mean NSE (eq. 3) of reconstructions through the latent mean."""
    serving = Serving(model).eval()
    return float(torch.cat([serving(part)[1] for part in x.split(ENCODED)]).mean())


def seed_all(seed: int, epoch: int) -> None:
    """Make the draws of an epoch depend on nothing but (seed, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))


def _save(
    folder: Path,
    model: BetaVAE,
    optimizer: torch.optim.Optimizer,
    losses: list[dict[str, float]],
    machines: list[str],
) -> None:
    """Write the checkpoint; it replaces the last one only when it is whole."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    partial = folder / "checkpoint.part"
    said = {TRAINED: json.dumps({"losses": losses, "machines": machines})}  # of several keys the order is random
    save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, partial, said)
    partial.replace(folder / "checkpoint.safetensors")
    write_atomically(folder / "losses.csv", _csv(losses))


def _resume(folder: Path, model: BetaVAE, optimizer: torch.optim.Optimizer) -> tuple[list[dict[str, float]], list[str]]:
    """Load the checkpoint; return the losses of each epoch done, and on which machines they were.

    Raises DataError where it is damaged.
    """
    file = folder / "checkpoint.safetensors"
    if not file.exists():
        return [], []
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise DataError(f"{file} is damaged ({error}): remove it, and training begins anew") from None
    load_weights(model, tensors)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return checkpoint_losses(file), checkpoint_machines(file)


def load_weights(model: BetaVAE, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a model the weights of a checkpoint; tensors: all that it holds."""
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})


def checkpoint_losses(file: Path) -> list[dict[str, float]]:
    """Return the losses of each epoch that a checkpoint has seen."""
    return _trained(file)["losses"]


def checkpoint_machines(file: Path) -> list[str]:
    """Return the machines that a checkpoint's epochs were trained on, in order; none where it is too old to say."""
    return _trained(file)["machines"]


def _trained(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    return json.loads(said[TRAINED]) if TRAINED in said else {"losses": json.loads(said["losses"]), "machines": []}


def _csv(rows: list[dict[str, float]]) -> str:
    lines = [",".join(rows[0])] + [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"
