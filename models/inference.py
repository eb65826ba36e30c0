"""Predictions of a trained net or learner, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from campaigns.errors import EnvironmentProblem
from models.ensemble import Ensemble
from models.learners.base import Learner
from models.nets.base import Net

CELLS = 2**21  # of a table that a learner is asked about at a time
NET_CELLS = {"cpu": 2**16, "cuda": 2**22}  # and a net: what it makes of them stays in the cache


def predict(
    net: nn.Module | Learner,
    x_num: np.ndarray,
    x_cat: np.ndarray,
    batch_size: int = 16_384,
    device: str = "auto",
) -> np.ndarray:
    """Potential outcomes of any number of rows, [N, A, K] float32; the net's mode is left as it was.

    Args:
        net: A net, bare or wrapped; it must be on the device already unless that is ``auto``. Or a
            learner, which knows no device.
        x_num, x_cat: Encoded features, [N, F_n] and [N, F_c].
        batch_size: Rows at a time; a net is asked about fewer where there are many features, a
            learner about more where there are few.
        device: ``auto`` is where the net's weights are.
    """
    if isinstance(net, Learner):
        return _in_parts(net, x_num, x_cat, _learner_rows(net, batch_size))
    model = cast(Net, bare(net))
    outcomes = np.empty((len(x_num), model.shape.arms, model.shape.outcome_count), np.float32)
    _ask(model, model.potential_outcomes, x_num, x_cat, outcomes, batch_size, device)
    return outcomes


def predict_members(
    net: nn.Module | Learner, x_num: np.ndarray, x_cat: np.ndarray, batch_size: int = 16_384
) -> np.ndarray | None:
    """What each member of an ensemble expects, or each draw of a posterior, [M, N, A, K] float32.

    None of a model that has fewer than two. Arguments as for :func:`predict`.
    """
    if isinstance(net, Learner):
        rows = _learner_rows(net, batch_size)
        starts = range(0, max(len(x_num), 1), rows)
        found = [net.member_outcomes(x_num[s : s + rows], x_cat[s : s + rows]) for s in starts]
        parts = [part for part in found if part is not None]
        return np.concatenate(parts, axis=1) if parts else None
    model = bare(net)
    if not isinstance(model, Ensemble) or len(model) < 2:
        return None
    sizes = (len(x_num), len(model), model.shape.arms, model.shape.outcome_count)
    outcomes = np.empty(sizes, np.float32)

    def by_row(numbers: Tensor, ids: Tensor) -> Tensor:
        return model.member_outcomes(numbers, ids).transpose(0, 1)

    _ask(model, by_row, x_num, x_cat, outcomes, batch_size, "auto")
    return outcomes.swapaxes(0, 1)


def _ask(
    model: Net,
    method: Callable[[Tensor, Tensor], Tensor],
    x_num: np.ndarray,
    x_cat: np.ndarray,
    outcomes: np.ndarray,
    batch_size: int,
    device: str,
) -> None:
    """Fill in what a method of the net answers, in evaluation mode, by rows."""
    place = next(model.parameters()).device if device == "auto" else find_device(device)
    model.to(place)
    training = model.training
    step = max(1, min(batch_size, NET_CELLS[place.type] // model.shape.features))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(x_num), step):
            rows = slice(start, start + step)
            numbers = torch.as_tensor(x_num[rows], dtype=torch.float32, device=place)
            ids = torch.as_tensor(x_cat[rows], dtype=torch.int64, device=place)
            outcomes[rows] = method(numbers, ids).cpu().numpy()
    model.train(training)


def _in_parts(
    learner: Learner, x_num: np.ndarray, x_cat: np.ndarray, batch_size: int
) -> np.ndarray:
    shape = learner.shape
    outcomes = np.empty((len(x_num), shape.arms, shape.outcome_count), np.float32)
    for start in range(0, len(x_num), batch_size):
        rows = slice(start, start + batch_size)
        outcomes[rows] = learner.potential_outcomes(x_num[rows], x_cat[rows])
    return outcomes


def _learner_rows(learner: Learner, fewest: int) -> int:
    """How many rows a learner is asked at a time: every time it takes its models apart anew."""
    shape = learner.shape
    return max(fewest, CELLS // (shape.numeric + len(shape.categories)))


def bare(net: nn.Module) -> nn.Module:
    """The net inside a data-parallel wrapper, or the net itself."""
    wrapped = isinstance(net, nn.parallel.DistributedDataParallel)
    return cast(nn.Module, net.module) if wrapped else net


def find_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, or ``auto``: CUDA where there is one.

    Raises:
        EnvironmentProblem: CUDA is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise EnvironmentProblem(
            "device 'cuda': this machine has no usable GPU; give 'auto' or 'cpu'"
        )
    return torch.device("cuda" if there and name != "cpu" else "cpu")
