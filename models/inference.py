"""Predictions of a trained net or learner, and where it runs."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from campaigns.errors import EnvironmentProblem
from models.learners.base import Learner
from models.nets.base import Net


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
        batch_size: Rows at a time.
        device: ``auto`` is where the net's weights are.
    """
    if isinstance(net, Learner):
        return _in_parts(net, x_num, x_cat, batch_size)
    model = cast(Net, bare(net))
    place = next(model.parameters()).device if device == "auto" else find_device(device)
    model.to(place)
    training = model.training
    model.eval()
    outcomes = np.empty((len(x_num), model.shape.arms, model.shape.outcome_count), np.float32)
    with torch.inference_mode():
        for start in range(0, len(x_num), batch_size):
            rows = slice(start, start + batch_size)
            numbers = torch.as_tensor(x_num[rows], dtype=torch.float32, device=place)
            ids = torch.as_tensor(x_cat[rows], dtype=torch.int64, device=place)
            outcomes[rows] = model.potential_outcomes(numbers, ids).cpu().numpy()
    model.train(training)
    return outcomes


def _in_parts(
    learner: Learner, x_num: np.ndarray, x_cat: np.ndarray, batch_size: int
) -> np.ndarray:
    shape = learner.shape
    outcomes = np.empty((len(x_num), shape.arms, shape.outcome_count), np.float32)
    for start in range(0, len(x_num), batch_size):
        rows = slice(start, start + batch_size)
        outcomes[rows] = learner.potential_outcomes(x_num[rows], x_cat[rows])
    return outcomes


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
