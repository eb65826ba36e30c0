"""Two processes that average gradients train what one process trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import sys
import numpy as np
import torch
import torch.distributed as dist
from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x, arm = rng.normal(size=(301, 3)), rng.integers(0, 3, 301)
y = np.column_stack([rng.random(301) < 0.4, x[:, 0] + arm]).astype(float)
rows = Batch.of(x, rng.integers(0, 4, (301, 1)), arm, y)
shape = Shape(3, (4,), ((0,), (1,), (2,)), ("binary", "continuous"))
net = build("mtmt", shape, {"width": 4, "hidden": 8, "loss": "bce"}, seed=rank)
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    net = torch.nn.parallel.DistributedDataParallel(net)
config = TrainConfig(epochs=4, batch_size=50, metric="score", patience=2)
score = iter([1.0, 0.5, 0.7, 0.6]) if rank == 0 else iter([4.0, 3.0, 2.0, 1.0])
result = fit(
    net,
    InMemoryBatches(rows, 50, 0, rank, size),
    lambda net: {"score": next(score), "loss": float(net.loss(rows)["loss"])},
    config,
)
torch.save((result.best_state, result.history, result.best_epoch), f"{folder}/{size}-{rank}.pt")
if size > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    root = Path(__file__).resolve().parents[3]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(size), str(tmp_path)], cwd=root
        )
        for rank, size in [(0, 1), (0, 2), (1, 2)]
    ]
    try:
        assert [run.wait(timeout=240) for run in runs] == [0, 0, 0]
    finally:
        for run in runs:
            run.kill()
    alone, first, second = (
        torch.load(tmp_path / f"{run}.pt", weights_only=True) for run in ("1-0", "2-0", "2-1")
    )
    assert alone[2] == first[2] == second[2] == 1, "the first worker's validation decides"
    assert first[1][-1]["validation"] == second[1][-1]["validation"]
    for name, value in alone[0].items():
        assert torch.equal(first[0][name], second[0][name])
        torch.testing.assert_close(first[0][name], value, rtol=1e-3, atol=1e-5)
