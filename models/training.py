"""The loop that trains every net: plain torch, one process or one of several.

Nets own no optimizer and no device. The loop is the same when the net is wrapped for data-parallel
training (its loss goes through ``forward``) and when batches stream from elsewhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from campaigns.errors import CampaignError, CheckFailed, DataError, choices
from models.batches import InMemoryBatches
from models.data import Batch
from models.inference import bare, find_device, predict
from models.memory import kept_memory
from models.space import Config, OneOf, Span, choice, integer, real, text

__all__ = [
    "EpochReport",
    "FitResult",
    "InMemoryBatches",
    "TrainConfig",
    "bare",
    "find_device",
    "fit",
    "predict",
    "sized",
]

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class TrainConfig(Config):
    """How to train; the learning rate warms up, then falls along a cosine to zero."""

    epochs: int = integer(10, 1, 100_000, "Most passes over the data.")
    batch_size: int = integer(
        0, 0, 10_000_000, "Rows a step, all workers together; 0: about 120 steps an epoch."
    )
    learning_rate: float = real(
        2e-3, 1e-8, 10.0, "Highest rate of AdamW.", search=Span(3e-4, 1e-2, log=True)
    )
    weight_decay: float = real(
        0.1, 0.0, 10.0, "Decoupled decay of AdamW.", search=OneOf(0.0, 1e-2, 1e-1)
    )
    schedule: str = choice("cosine", ("cosine", "constant"), "Learning rate after the warm-up.")
    warmup_steps: int = integer(20, 0, 1_000_000, "Steps of linear warm-up.")
    clip: float = real(1.0, 1e-6, 1e9, "Longest gradient (norm over all weights).")
    patience: int = integer(5, 1, 100_000, "Epochs without improvement before it stops.")
    metric: str = text("loss", "The validation metric that picks the best epoch.")
    mode: str = choice("min", ("min", "max"), "Whether less or more of the metric is better.")
    seed: int = integer(0, 0, 2**63 - 1, "Seed of dropout (and of the weights, by the caller).")
    device: str = choice("auto", ("auto", "cpu", "cuda"), "Where to train.")
    precision: str = choice("fp32", ("fp32", "bf16"), "bf16 computes matmuls in bfloat16.")


STEPS, BATCHES = 120, (128, 4096)  # of an epoch, where the batch size is left open; its ends
BATCH_CELLS = 2**18  # rows x features of such a batch at most, for tables of hundreds of features


def sized(config: TrainConfig, rows: float, features: int) -> TrainConfig:
    """The config with a batch size: where it is open, the power of two that makes ``STEPS`` an epoch.

    Small frames need the steps: on 12,000 rows of game_bonus, batches of 256 in place of 2,048 took
    MTMT's share of the oracle's value from 0.74 to 0.83 (budget of 10%, one seed).
    """
    if config.batch_size:
        return config
    wanted = 2 ** round(math.log2(max(rows, 1.0) / STEPS))
    most = min(BATCHES[1], 2 ** int(math.log2(BATCH_CELLS / features)))
    return replace(config, batch_size=int(min(max(wanted, BATCHES[0]), max(most, BATCHES[0]))))


@dataclass(frozen=True)
class EpochReport:
    """An epoch that has just ended.

    Attributes:
        epoch: From 0.
        train: Mean over the steps of every term of the loss.
        validation: What ``validate`` measured.
        best_epoch: The best so far.
        state: Makes a snapshot that ``fit`` resumes from (plain tensors, lists and numbers), if
            called before ``on_epoch`` returns.
    """

    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    best_epoch: int
    state: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class FitResult:
    """A finished training.

    Attributes:
        best_state: ``state_dict`` of the bare net at its best epoch, on the CPU.
        history: ``{"epoch", "train", "validation"}`` of every epoch.
        best_epoch: Which epoch was best.
    """

    best_state: dict[str, Tensor]
    history: list[dict[str, Any]]
    best_epoch: int


@dataclass
class _Progress:
    """Where training stands; all of it is in the resume state."""

    epoch: int = 0
    step: int = 0
    steps_an_epoch: int | None = None
    best: float = math.inf
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    net: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[nn.Module], Mapping[str, float]],
    config: TrainConfig,
    *,
    resume: dict[str, Any] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> FitResult:
    """Train a net; it ends with its best weights.

    Equal inputs give equal weights, and a resumed run those of an uninterrupted one, bit for bit on
    a CPU. With several workers the first one's validation decides for all.

    Args:
        net: A net, wrapped for data-parallel training or not; moved to the device if not.
        batches: The batches of an epoch. Where they have a length the schedule moves each step.
        validate: Measures the bare net, in evaluation mode and without gradients.
        config: How to train.
        resume: The state of an :class:`EpochReport`.
        on_epoch: Called after each epoch.

    Raises:
        CampaignError: The validation metric named in the config is not among those measured.
        CheckFailed: The loss or the metric is not finite.
        DataError: An epoch without batches.
        EnvironmentProblem: CUDA is asked for and there is none.
    """
    device = find_device(config.device)
    if bare(net) is net:
        net.to(device)
    fused = {p.device.type for p in net.parameters()} <= {"cpu", "cuda"}
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
    )
    at = _Progress()
    with kept_memory(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        if resume is not None:
            _restore(resume, net, optimizer, at, device)
        while at.epoch < config.epochs and at.epoch - at.best_epoch <= config.patience:
            train = _train_epoch(net, optimizer, batches(at.epoch), config, at, device)
            validation = _validate(net, validate, config)
            _keep_best(bare(net), validation[config.metric], config, at)
            at.history.append({"epoch": at.epoch, "train": train, "validation": validation})
            at.epoch += 1
            if on_epoch is not None:
                state = partial(_snapshot, net, optimizer, at, device)
                on_epoch(EpochReport(at.epoch - 1, train, validation, at.best_epoch, state))
    bare(net).load_state_dict(at.best_state)
    return FitResult(at.best_state, at.history, at.best_epoch)


def _train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    config: TrainConfig,
    at: _Progress,
    device: torch.device,
) -> dict[str, float]:
    """One pass; the mean of every term of the loss."""
    net.train()
    if isinstance(batches, Sized):
        at.steps_an_epoch = len(batches)
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in batches:
        _set_rate(optimizer, config, at, count)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            terms = net(batch.to(device))
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        optimizer.step()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.detach().double()
        count += 1
        at.step += 1
        if count % CHECK_EVERY == 0:
            _check_finite(sums["loss"], at.epoch, count)
    if not count:
        raise DataError(f"epoch {at.epoch} had no batches to train on")
    _check_finite(sums["loss"], at.epoch, count)
    at.steps_an_epoch = count
    return {name: float(total) / count for name, total in sums.items()}


def _set_rate(
    optimizer: torch.optim.Optimizer, config: TrainConfig, at: _Progress, step: int
) -> None:
    """The rate as a function of where training stands, so that there is no state to resume."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        part = min(step / at.steps_an_epoch, 1.0) if at.steps_an_epoch else 0.0
        rate *= 0.5 * (1.0 + math.cos(math.pi * (at.epoch + part) / config.epochs))
    rate *= min(1.0, (at.step + 1) / (config.warmup_steps + 1))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _check_finite(total: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(total):
        raise CheckFailed(
            f"the loss is {total.item()} in epoch {epoch}, by step {step}: "
            "lower learning_rate, or look for infinite or huge features and outcomes"
        )


def _validate(
    net: nn.Module, validate: Callable[[nn.Module], Mapping[str, float]], config: TrainConfig
) -> dict[str, float]:
    """What the first worker measured, on every worker."""
    net.eval()
    with torch.no_grad():
        measured = [{name: float(value) for name, value in validate(bare(net)).items()}]
    if dist.is_initialized():
        dist.broadcast_object_list(measured, src=0)
    if config.metric not in measured[0]:
        raise CampaignError(
            f"validation measures no '{config.metric}'; give {choices(measured[0])}"
        )
    if not math.isfinite(value := measured[0][config.metric]):
        raise CheckFailed(f"validation metric '{config.metric}' is {value}; it must be finite")
    return measured[0]


def _keep_best(net: nn.Module, value: float, config: TrainConfig, at: _Progress) -> None:
    signed = value if config.mode == "min" else -value
    if signed < at.best:
        at.best, at.best_epoch = signed, at.epoch
        at.best_state = {name: each.cpu().clone() for name, each in net.state_dict().items()}


def _snapshot(
    net: nn.Module, optimizer: torch.optim.Optimizer, at: _Progress, device: torch.device
) -> dict[str, Any]:
    state = {
        "net": bare(net).state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(at),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    return copy.deepcopy(state)


def _restore(
    state: dict[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    at: _Progress,
    device: torch.device,
) -> None:
    state = copy.deepcopy(state)
    bare(net).load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    vars(at).update(state["progress"])
    torch.set_rng_state(state["rng"].cpu())
    if device.type == "cuda" and state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"].cpu(), device)
