"""Train a campaign's net with Ray Train, data-parallel over any number of workers.

The caller has connected to Ray already; nothing here starts or stops it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from pyarrow import fs
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError, WorkerGroupError
from torch import nn

from campaigns.errors import EnvironmentProblem, UpdraftError
from campaigns.spec import Campaign
from campaigns.storage import absolute, filesystem, is_uri
from models.batches import InMemoryBatches
from models.capacity import given_back, require
from models.catalog import build, entry
from models.companion import fit_trees
from models.data import Batch
from models.dataset import load
from models.fitting import as_it_can, fit_as_task
from models.interrupt import interruptible
from models.learners.base import Learner
from models.plan import Plan, figures, make_plan, train_config
from models.progress import Say, quiet, told
from models.ranking import RankingNet
from models.selection import Validation
from models.streaming import StreamedBatches, stream
from models.training import EpochReport, fit
from models.uplift_model import UpliftModel
from models.worker_network import NodeTorchConfig

STATE = "state.pt"
UNSEEN_ROWS = 2_000  # an arm, with which a net is finished on validation rows alone
VALIDATION_ROWS = 500_000  # of a streamed frame that are held in memory to validate on (about)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: With the weights of its best epoch.
        history: ``{"epoch", "train", "validation"}`` of every epoch.
        best_epoch: Which epoch was best.
        seconds: How long it took, the start of the workers included.
    """

    model: UpliftModel
    history: list[dict[str, Any]]
    best_epoch: int
    seconds: float


def train(
    source: str | Path,
    campaign: Campaign,
    *,
    config: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    workers: int = 1,
    gpu: bool = False,
    cpus_per_worker: int = 1,
    storage: str | Path,
    run: str | None = None,
    streamed: bool | None = None,
    max_failures: int = 2,
    say: Say = quiet,
) -> Trained:
    """Train the campaign's net, or fit its learner.

    The same seed and number of workers give the same model on CPUs. Several workers compute what
    one does, up to rounding, where the net has no dropout and the rows don't stream.

    A learner is fit in one process on ``cpus_per_worker`` CPUs; its history has one epoch, ``run``
    and ``storage`` are not used, and what of the rest it has no use for is said.

    Args:
        source: Path or URI of a decision frame (Parquet) that every worker can read.
        campaign: With ``'*'`` among its features expanded; its ``model.name`` is trained.
        config: The net's settings by name; what is left out keeps its default. None: those of
            ``campaign.model.config``.
        training: Settings of :class:`TrainConfig`, likewise (``campaign.model.training``).
            ``batch_size`` counts the rows of all workers together; ``metric``, which picks the best
            epoch, is one of those in ``models/selection.py``.
        workers: Data-parallel workers.
        gpu: One GPU a worker.
        cpus_per_worker: Logical CPUs that a worker reserves, and threads that it computes on.
        storage: Folder or URI that every node can write: a checkpoint an epoch, the last is kept.
        run: The run's folder there. A run of that name goes on from its checkpoint.
        streamed: Stream the training rows instead of reading them into memory; None: where
            their tensors are larger than ``dataset.STREAM_BYTES``.
        max_failures: How often lost workers are replaced; training goes on from the last epoch.
        say: Told of every epoch, in a sentence.

    Raises:
        CampaignError: An unknown setting, or a net that can't serve the campaign.
        DataError: The frame is wrong.
        CheckFailed: Training diverged.
        EnvironmentProblem: More CPUs or GPUs than there are, or workers were lost too often.
    """
    begin = time.monotonic()
    config = campaign.model.config if config is None else config
    training = campaign.model.training if training is None else training
    settings = train_config(campaign.model.name, training, device="cuda" if gpu else "cpu")
    plan = make_plan(source, campaign, config, settings, cpus_per_worker, streamed)
    if entry(plan.name).learner:
        plan.learner()  # one that can't serve the campaign is refused here, not by the task
        plan = as_it_can(plan, training, workers=workers, gpu=gpu, say=say)
        fitted = fit_as_task(plan, say, max_failures)
        model = _model(plan, campaign, fitted.learner)
        return Trained(model, fitted.history, 0, time.monotonic() - begin)
    plan.net()  # a net that can't serve the campaign is refused here, not by a worker
    reading = 1 if plan.streamed else 0  # the tasks that read and encode
    require(
        workers * cpus_per_worker + reading, f"{workers} training worker(s)", gpus=workers * gpu
    )
    name = run or f"{campaign.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    with told(say, settings.epochs) as progress:
        result = launch(plan, workers, storage, name, [progress], max_failures)
    with result.checkpoint.as_directory() as folder:
        done = _read(Path(folder))["progress"]
    net = _net(plan, done["best_state"])
    if isinstance(net, RankingNet):
        net.finish(_unseen(plan))
    model = _model(plan, campaign, net)
    model.trees = fit_trees(plan, say, max_failures)
    return Trained(
        model,
        done["history"],
        done["best_epoch"],
        time.monotonic() - begin,
    )


def launch(
    plan: Plan,
    workers: int,
    storage: str | Path,
    run: str,
    callbacks: list[Any],
    max_failures: int = 0,
) -> ray.train.Result:
    """Carry a plan out in a group of workers; the result's checkpoint holds what came of it.

    Raises:
        UpdraftError: What a worker raised.
        EnvironmentProblem: Workers were lost more often than ``max_failures``.
        KeyboardInterrupt: Somebody pressed Ctrl-C; the workers are gone.
    """
    resources = {"CPU": plan.cpus} | ({"GPU": 1} if plan.training.device == "cuda" else {})
    trainer = ray.train.torch.TorchTrainer(
        partial(_work, plan),  # travels past the controller, which then needs no torch
        torch_config=NodeTorchConfig(),
        datasets={"train": stream(plan.source, plan.recipe)} if plan.streamed else None,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=run,
            **run_storage(storage),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            callbacks=callbacks,
        ),
    )
    try:
        with given_back(), interruptible():
            return trainer.fit()
    except WorkerGroupError as error:
        raise _plain(error, max_failures) from error
    except TrainingFailedError as error:
        raise EnvironmentProblem(f"training couldn't run: {_last_line(error)}") from error


def run_storage(place: str | Path) -> dict[str, Any]:
    """A folder or URI as Ray's run configurations take it.

    Raises:
        CampaignError: Nothing here can open such a URI.
        RemoteError: The store can't be reached.
    """
    found, path = filesystem(place)
    if is_uri(place) and isinstance(found, fs.PyFileSystem):  # Ray itself knows Arrow's only
        return {"storage_path": path, "storage_filesystem": found}
    return {"storage_path": absolute(place)}


def _work(plan: Plan) -> None:
    """What each worker does."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(plan.cpus)
    rows = load(
        plan.source,
        plan.recipe,
        rows=VALIDATION_ROWS if plan.streamed else plan.rows,
        seed=plan.training.seed,
        training=not plan.streamed,
    )
    net, device = plan.net(), ray.train.torch.get_device()
    ddp = {
        "broadcast_buffers": False,  # nets keep no statistics of a batch
        "find_unused_parameters": _has_unused(net, rows.validation),
    }
    fit(
        ray.train.torch.prepare_model(net, parallel_strategy_kwargs=ddp if workers > 1 else None),
        _batches(plan, rows.train.to(device), rank, workers),
        Validation.of(rows, device) if rank == 0 else _nothing,  # the first one's counts for all
        plan.training,
        resume=_latest(),
        on_epoch=partial(_report, rank=rank),
    )


def _batches(plan: Plan, rows: Batch, rank: int, workers: int) -> Any:
    """This worker's part of every batch."""
    size, seed = plan.training.batch_size, plan.training.seed
    if not plan.streamed:
        return InMemoryBatches(rows, size, seed, rank, workers)
    return StreamedBatches(ray.train.get_dataset_shard("train"), max(size // workers, 1), seed)


def _nothing(net: nn.Module) -> dict[str, float]:
    return {}


def _unseen(plan: Plan) -> Batch:
    """Rows to finish a net on: those that it wasn't trained on, or all where these are few."""
    rows = load(plan.source, plan.recipe, rows=VALIDATION_ROWS, seed=plan.training.seed)
    if int(rows.validation.arm.bincount(minlength=plan.recipe.shape.arms).min()) >= UNSEEN_ROWS:
        return rows.validation
    both = zip(vars(rows.train).values(), vars(rows.validation).values())
    return Batch(*(torch.cat(pair) for pair in both))


def _has_unused(net: nn.Module, rows: Batch) -> bool:
    """Whether some weight has no part in the loss, which data-parallel training must be told."""
    net.eval()  # what a net keeps count of in training doesn't count these rows
    net(rows.select(torch.arange(min(len(rows), 64))))["loss"].backward()
    unused = any(weight.grad is None for weight in net.parameters())
    net.zero_grad(set_to_none=True)
    net.train()
    return unused


def _report(epoch: EpochReport, *, rank: int) -> None:
    """Hand an epoch to Ray Train, the first worker's with all that is needed to go on from it."""
    if rank:
        ray.train.report(figures(epoch))
        return
    with tempfile.TemporaryDirectory(prefix="updraft-") as folder:
        torch.save(epoch.state(), Path(folder) / STATE)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(figures(epoch), checkpoint=checkpoint)


def _latest() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return _read(Path(folder))


def _read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def _net(plan: Plan, weights: dict[str, torch.Tensor]) -> nn.Module:
    net = build(plan.name, plan.recipe.shape, plan.config)
    net.load_state_dict(weights)
    return net.eval()


def _model(plan: Plan, campaign: Campaign, net: nn.Module | Learner) -> UpliftModel:
    recipe = plan.recipe
    meta = {
        "campaign_hash": campaign.hash,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return UpliftModel(
        plan.name, plan.config, recipe.shape, recipe.encoder, recipe.scaler, net, campaign,
        meta=meta,
    )  # fmt: skip


def _plain(error: WorkerGroupError, max_failures: int) -> Exception:
    """What a worker raised on purpose; that its process died; or the error itself, a fault of ours."""
    causes = [
        getattr(each, "health_check_failure", each) for each in error.worker_failures.values()
    ]
    for cause in causes:
        if isinstance(cause, UpdraftError):
            return cause
    if all(isinstance(cause, RayActorError) for cause in causes):
        return EnvironmentProblem(
            f"a training worker's process died, {max_failures + 1} time(s) in all; they are killed "
            "so where memory runs out: use more workers, or machines with more memory"
        )
    return error


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1].strip()
