"""How fast do the nets train, and how near to what the machine can do?

One step of every net is batch, loss, gradients, clipping and AdamW, as the training loop takes it, on 12
features (8 numeric, 4 of 20 categories), 3 arms and 2 outcomes in sequence, at batches of 256, 4,096 and
15,360 rows. A net that needs several factors gets its three arms as two factors. Told are, by medians:

* rows a second;
* FLOPs of the step, which are the matrix products that ``torch.utils.flop_counter`` sees, forward and
  backward. Element-wise work (activations, the optimizer, masks) isn't in them, and takes the more
  of the time the smaller the products are: a low rate is mostly that;
* GFLOP/s achieved, beside the machine's own: its best product of two 1024 x 1024 float32 matrices, on the
  same threads;
* in products: the share of the step's time that its matrix products took;
* input: the share of the step that shuffling and gathering its rows took (``InMemoryBatches``).

Run: ``python -m benchmarks.models.speed [--full] [--device cuda] [--threads 1] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine, wide_console
from campaigns.errors import EnvironmentProblem
from models.catalog import build, catalog, lacks
from models.data import Batch, Shape
from models.memory import kept_memory
from models.training import InMemoryBatches, find_device

BATCHES = (256, 4096, 15_360)
NUMERIC, CATEGORIES, OUTCOMES = 8, (20,) * 4, ("binary", "binary")
ONE_FACTOR = Shape(NUMERIC, CATEGORIES, ((0,), (1,), (2,)), OUTCOMES, (0, 1))
TWO_FACTORS = Shape(NUMERIC, CATEGORIES, ((0, 0), (1, 0), (0, 1)), OUTCOMES, (0, 1))
ONE_DOSE = replace(ONE_FACTOR, doses=((0.0, 0.5, 1.0),))
SIDE = 1024
PARTS = 4  # batches an epoch, in measuring input
WARM_UP = 2  # turns that aren't timed
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


def nets() -> dict[str, Shape]:
    """Every net of the catalogue, with the shape that it is measured on."""
    found = {}
    for name, entry in catalog().items():
        tried = (ONE_FACTOR, TWO_FACTORS, ONE_DOSE)
        fitting = [each for each in tried if not lacks(entry.supports, each)]
        if not entry.learner and fitting:
            found[name] = fitting[0]
    return found


def draw(rows: int, seed: int = 0) -> Batch:
    """Rows of noise: nothing is learned here."""
    rng = np.random.default_rng(seed)
    x, ids = rng.normal(size=(rows, NUMERIC)), rng.integers(0, 20, (rows, len(CATEGORIES)))
    y = np.cumprod(rng.random((rows, len(OUTCOMES))) < 0.5, axis=1).astype(float)
    return Batch.of(x, ids, rng.integers(0, 3, rows), y, np.full(rows, 1 / 3))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """A step of the training loop."""
    optimizer.zero_grad()
    net(batch)["loss"].backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def times(
    work: Callable[[], object], device: torch.device, least: int, budget: float
) -> np.ndarray:
    """Seconds of doing it, at least ``least`` times and for ``budget`` seconds, once warm."""
    taken: list[float] = []
    with kept_memory():
        for turn in range(WARM_UP + 1000):
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= WARM_UP:
                taken.append(time.perf_counter() - started)
            if len(taken) >= least and sum(taken) >= budget:
                break
    return np.array(taken)


def product_rate(device: torch.device) -> float:
    """GFLOP/s of a product of two matrices, SIDE x SIDE each."""
    one, other = torch.randn(2, SIDE, SIDE, device=device)
    return float(2 * SIDE**3 / times(lambda: one @ other, device, 10, 1.0).min() / 1e9)


def input_seconds(batch: int, device: torch.device, budget: float) -> float:
    """What a batch costs before the net sees it: its part of the shuffle, and gathering its rows."""
    epochs = InMemoryBatches(draw(PARTS * batch).to(device), batch)

    def epoch() -> None:
        for _ in epochs(0):
            pass

    return float(np.median(times(epoch, device, 3, budget))) / PARTS


def measure(
    name: str, shape: Shape, batch: Batch, device: torch.device, least: int, budget: float
) -> dict[str, float]:
    """A net's step on a batch: seconds, FLOPs and weights."""
    net = build(name, shape, seed=0).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    with FlopCounterMode(display=False) as counter:
        step(net, optimizer, batch)
    taken = float(np.median(times(lambda: step(net, optimizer, batch), device, least, budget)))
    weights = sum(parameter.numel() for parameter in net.parameters())
    return {
        "step": taken,
        "flops": counter.get_total_flops(),
        "weights": weights,
        "products": product_seconds(lambda: step(net, optimizer, batch), device) / taken,
    }


class Products(TorchDispatchMode):
    """Within it, ``seconds`` counts the time spent in matrix products."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.seconds = device, 0.0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        found = op(*args, **(kwargs or {}))
        if op.overloadpacket in PRODUCTS:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - started
        return found


def product_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of it that are spent in matrix products, by the median of a few turns."""
    spent = []

    def turn() -> None:
        with Products(device) as products:
            work()
        spent.append(products.seconds)

    times(turn, device, 3, 0.0)
    return float(np.median(spent[WARM_UP:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more steps of each")
    parser.add_argument("--models", default=None, help="names of the nets; default: all")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=None, help="of torch; default: its own")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = find_device(options.device)
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.exit_code) from None
    console, results = wide_console(), []
    least, budget = (20, 2.0) if options.full else (3, 0.3)
    every = nets()
    names = options.models.split(",") if options.models else list(every)
    peaks = []
    for rows in map(int, options.batches.split(",")):
        peaks.append(product_rate(device))
        batch, handling = draw(rows).to(device), input_seconds(rows, device, budget)
        for name in names:
            found = measure(name, every[name], batch, device, least, budget)
            whole = found["step"] + handling
            told = {
                "rows/s": rows / whole,
                "GFLOP/s": found["flops"] / found["step"] / 1e9,
                "input": handling / whole,
            }
            results.append({"batch": rows, "model": name, **found, **told})
            console.print(
                f"{rows} {name}: {told['rows/s']:,.0f} rows/s, {told['GFLOP/s']:.1f} GFLOP/s",
                highlight=False,
            )
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"threads: {threads}"
    report = {
        "machine": f"{machine('torch')}; {where}",
        "product GFLOP/s": max(peaks),
        "threads": threads,
        "device": device.type,
        "results": results,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    show(report, console)


def show(report: dict[str, Any], console: Console) -> None:
    """A table a batch size."""
    results: Sequence[dict[str, Any]] = report["results"]
    peak = report["product GFLOP/s"]
    for rows in dict.fromkeys(result["batch"] for result in results):
        table = Table(
            title=f"one training step, batch of {rows:,}; matrix product {peak:.0f} GFLOP/s"
        )
        table.add_column("net", no_wrap=True)
        for column in ("rows/s", "ms", "MFLOP", "GFLOP/s", "of product", "in products", "input"):
            table.add_column(column, justify="right")
        for found in results:
            if found["batch"] == rows:
                table.add_row(
                    found["model"],
                    f"{found['rows/s']:,.0f}",
                    f"{found['step'] * 1e3:.1f}",
                    f"{found['flops'] / 1e6:,.0f}",
                    f"{found['GFLOP/s']:.1f}",
                    f"{found['GFLOP/s'] / peak:.0%}",
                    f"{found['products']:.0%}",
                    f"{found['input']:.1%}",
                )
        console.print(table)
    console.print(report["machine"], highlight=False)


if __name__ == "__main__":
    main()
