"""The stages, each run in a process of its own: ``python -m benchmarks.scale.stages NAME FOLDER ROWS FEATURES``.

A stage imports what it needs, and only then starts the clock: imports and Ray's start cost the same at any
size. It leaves ``NAME.json`` in the folder: when it began and ended, and bytes or FLOPs for its floor.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.scale.watch import own_peak

SEED = 0
UNITS = 20_000  # of the online store


class Clock:
    """When what is measured began and ended, and how long it took."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.began = time.time()
        yield
        self.ended = time.time()
        self.seconds = self.ended - self.began


def generate(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    from benchmarks.scale.world import write

    with clock():
        write(folder / "log.parquet", rows, features, SEED)
    return {"bytes": (folder / "log.parquet").stat().st_size}


def retrieval(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """Read and check the log, ingest its features, join them point-in-time; not the online store."""
    import feast  # noqa: F401

    from campaigns.settings import Settings
    from feature_repo.retrieval import retrieve, spelled_out

    spec, log = spelled_out(_campaign(folder, features))
    target = folder / "frame.parquet"
    with clock():
        found = retrieve(spec, None, log, Settings(home=folder / "home"), target)
    if found != rows:
        raise SystemExit(f"retrieval gave {found} rows for {rows}")
    # read the log; write and read decisions twice and features once; write the frame
    sizes = (folder / "log.parquet").stat().st_size, target.stat().st_size
    return {"bytes": sizes[0] + 6 * sizes[1]}


def validation(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    from components.validate_data import validate_data
    from models.checks import covariates, srm  # noqa: F401

    with clock():
        validate_data.python_func(
            campaign=_text(folder, features),
            training_frame=_at(folder / "frame.parquet"),
            validation=_at(folder / "found-validation.json"),
        )
    return {"bytes": _column_bytes(folder, "unit_id decided_at arm explored_propensity f".split())}


def drift(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    import evidently  # noqa: F401
    import mlflow  # noqa: F401
    from evidently import metrics, ui  # noqa: F401

    from components.detect_drift import detect_drift

    with clock():
        detect_drift.python_func(
            campaign=_text(folder, features),
            training_frame=_at(folder / "frame.parquet"),
            drift_report=_at(folder / "drift.html"),
            drift=_at(folder / "found-drift.json"),
        )
    return {"bytes": _column_bytes(folder, "unit_id decided_at arm explored_propensity f".split())}


def training(
    folder: Path, rows: int, features: int, clock: Clock, model: str = "mtmt"
) -> dict[str, Any]:
    """An epoch of a net, by the pipeline's own training: Ray Train, one worker, batches as it sizes them."""
    trained = _train(folder, features, clock, model, {"trees": 0})
    trained.model.save(folder / model)
    return {"flops": _flops(trained.model, rows), "bytes": rows * _row_bytes(features)}


def efin(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    return training(folder, rows, features, clock, "efin")


def trees(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """The boosted trees that MTMT has beside it unless told otherwise; then what they expect of every unit."""
    from benchmarks.scale.planning import predicted_values
    from models.catalog import entry

    bags = entry("mtmt").config().trees  # type: ignore[attr-defined]
    trained = _train(folder, features, clock, "s_boost", {"bags": bags})
    started = time.perf_counter()
    predicted_values(trained.model, folder / "frame.parquet")
    return {"bags": bags, "answering": time.perf_counter() - started}


def _train(folder: Path, features: int, clock: Clock, model: str, config: dict[str, Any]) -> Any:
    from campaigns.settings import Settings
    from models.ray_session import attach
    from pipelines.ray_runtime import ray_runtime

    home = Settings(home=folder / "home", cpus=4)
    with ray_runtime(home) as settings:
        attach(settings)  # before Ray is imported
        import ray

        from models.distributed import train

        with clock():
            trained = train(
                folder / "frame.parquet",
                _campaign(folder, features, model),
                config=config,
                training={"epochs": 1, "seed": SEED},
                storage=settings.folder("ray", "train"),
            )
        ray.shutdown()  # else it ends this process once its own are gone
    return trained


def evaluation(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """Qini, AUUC, LIFT with bootstrap intervals, curves with bands, calibration, policy curve."""
    from components.evaluate_model import evaluate_model
    from models import uplift_evaluation, uplift_model  # noqa: F401

    told: dict[str, float] = {}
    with clock():
        evaluate_model.python_func(
            campaign=_text(folder, features),
            training_frame=_at(folder / "frame.parquet"),
            model=_at(folder / "mtmt"),
            uplift_metrics=SimpleNamespace(log_metric=told.__setitem__),
            evaluation=_at(folder / "found-evaluation.json"),
        )
    return {"bytes": (folder / "frame.parquet").stat().st_size, "metrics": told}


def allocation(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """Predict every unit, then allocate within the budget."""
    import numpy as np

    from benchmarks.scale.planning import predicted_values
    from models.uplift_model import UpliftModel
    from serving.policy.limits import budget
    from serving.policy.planning import allocate_within

    model = UpliftModel.load(folder / "mtmt")
    with clock():
        value, cost = predicted_values(model, folder / "frame.parquet")
        started = time.perf_counter()
        amount = model.campaign.budget.amount * len(value)
        arm, plan = allocate_within(value, [budget(amount, cost, name="budget")])
        allocating = time.perf_counter() - started
    treated = int(np.count_nonzero(arm))
    return {
        "flops": _flops(model, rows, training=False),
        "allocating": allocating,
        "gap": plan.gap,
        "treated": treated,
        "bytes": value.nbytes,
    }


def online(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """Write units to the online store (SQLite) through Feast; at most ``UNITS`` of them."""
    from campaigns.frame_file import FrameFile
    from campaigns.settings import Settings
    from feature_repo.store import FeatureRepository

    spec = _campaign(folder, features)
    home = Settings(home=folder / "online")
    repository = FeatureRepository(spec, home)
    repository.apply()
    repository.ingest(next(FrameFile(folder / "frame.parquet", spec).pieces())[:UNITS])
    with clock():
        units = repository.materialize()
    size = (home.root / "feast" / spec.name / "online.db").stat().st_size
    shutil.rmtree(home.root)
    return {"units": units, "bytes a unit": size / units}


def pipeline(folder: Path, rows: int, features: int, clock: Clock) -> dict[str, Any]:
    """The whole run, as ``updraft run`` does it: how much longer does it take than its steps' own work?

    A step's own work is what passes between its ``started`` and ``finished`` lines: imports that it makes
    inside count, starting its process and those before the first line don't.
    """
    from benchmarks.scale.world import text

    home = folder / "pipeline"
    (folder / "scale.yaml").write_text(text(folder / "log.parquet", features))
    command = [sys.executable, "-m", "pipelines.cli", "run", str(folder / "scale.yaml")]
    with clock():
        environment = {**os.environ, "UPDRAFT_HOME": str(home)}
        subprocess.run([*command, "--seed", "0"], env=environment, check=True)
    (done,) = home.glob("runs/*/done.json")
    told = json.loads(done.read_text())
    shutil.rmtree(home)
    work = sum(told["steps"].values())
    return {"steps": told["steps"], "run": told["seconds"], "work": work,
            "overhead": clock.seconds / work - 1}  # fmt: skip


STAGES: dict[str, Callable[[Path, int, int, Clock], dict[str, Any]]] = {
    "generate": generate,
    "retrieval": retrieval,
    "validation": validation,
    "drift": drift,
    "mtmt epoch": training,
    "efin epoch": efin,
    "evaluation": evaluation,
    "allocation": allocation,
}
ONCE = {"trees": trees, "online": online}  # at one size, unless they are asked for
ALL = {**STAGES, **ONCE, "pipeline": pipeline}  # the last only where it is asked for


def file_of(stage: str, folder: Path) -> Path:
    """Where a stage's numbers lie."""
    return folder / f"{stage.replace(' ', '-')}.json"


def _campaign(folder: Path, features: int, model: str = "mtmt") -> Any:
    from benchmarks.scale.world import campaign

    return campaign(folder / "log.parquet", features, model)


def _text(folder: Path, features: int) -> str:
    return str(_campaign(folder, features).model_dump_json())


def _at(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), metadata={})


def _column_bytes(folder: Path, starts: list[str]) -> int:
    """Compressed bytes of the frame's columns that a check must read once: all features only of a sample."""
    import pyarrow.parquet as pq

    meta, total = pq.read_metadata(folder / "frame.parquet"), 0
    for group in range(meta.num_row_groups):
        for column in range(meta.num_columns):
            part = meta.row_group(group).column(column)
            total += part.total_compressed_size if part.path_in_schema in starts[:-1] else 0
    return total


def _row_bytes(features: int) -> int:
    """Of a row as tensors: features, two outcomes and their masks, arm, weight, propensity, unit."""
    return 4 * (features + 4 + 3) + 16


def _flops(model: Any, rows: int, training: bool = True) -> float:
    """Matrix products over the table: the training fold forward and backward, or all rows forward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.data import Batch
    from models.split import SHARES

    batch, shape = 1024, model.shape
    x = torch.zeros(batch, shape.numeric)
    none = torch.zeros(batch, 0, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        if training:
            y = torch.zeros(batch, shape.outcome_count).numpy()
            arm = (torch.arange(batch) % shape.arms).numpy()
            whole = Batch.of(x.numpy(), none.numpy(), arm, y, torch.full((batch,), 0.5).numpy())
            model.net.train()
            model.net.loss(whole)["loss"].backward()
        else:
            with torch.no_grad():
                model.net.potential_outcomes(x, none)
    return counter.get_total_flops() / batch * rows * (SHARES[0] if training else 1.0)


def main(stage: str, folder: str, rows: str, features: str) -> None:
    """Run one stage and leave its numbers."""
    place, clock = Path(folder), Clock()
    os.environ["UPDRAFT_HOME"] = str(place / "home")
    found = ALL[stage](place, int(rows), int(features), clock)
    found |= {"seconds": clock.seconds, "began": clock.began, "ended": clock.ended}
    found["peak"] = own_peak()
    file_of(stage, place).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
