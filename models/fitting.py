"""Fit a campaign's learner: in one process, with all its rows in memory, as a task of Ray.

Learners don't train by epochs and don't share work with other processes, so none of Ray Train's
machinery is in the way: the task reads the frame by itself, says what it has fit while it goes on,
and gives the learner back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from campaigns.errors import EnvironmentProblem, UpdraftError
from models.capacity import require
from models.data import Batch
from models.dataset import count_rows, load
from models.interrupt import interruptible
from models.learners.base import Learner
from models.plan import Plan
from models.progress import Say, quiet
from models.selection import Validation

MOST_BYTES = 2**30  # of a learner's rows as tensors; it holds several copies of twice the width


@dataclass(frozen=True)
class Fitted:
    """A learner that was fit, and what it measures on the validation fold if that is new to it."""

    learner: Learner
    validation: dict[str, float]

    @property
    def history(self) -> list[dict[str, Any]]:
        """As of a net that was trained for one epoch."""
        return [{"epoch": 0, "train": {}, "validation": self.validation}]

    @property
    def figures(self) -> dict[str, Any]:
        """What is reported of it to a search."""
        return {"best_epoch": 0, **self.history[0]}


def fit_here(plan: Plan, rows: Batch, validation: Validation, say: Say = quiet) -> Fitted:
    """Fit the plan's learner in this process."""
    learner = plan.learner().fit(
        rows, validation=validation.rows, seed=plan.training.seed, threads=plan.cpus, say=say
    )
    return Fitted(learner, {} if learner.learns_from_validation else validation(learner))


def fit_as_task(plan: Plan, say: Say = quiet, max_failures: int = 0) -> Fitted:
    """Fit the plan's learner in a task of Ray.

    Args:
        plan: What to fit; ``plan.cpus`` are the task's.
        say: Told of every model that is fit.
        max_failures: How often a task whose process died begins again.

    Raises:
        UpdraftError: What the task raised.
        EnvironmentProblem: Too few CPUs are free, or the task's process died too often.
        KeyboardInterrupt: Somebody pressed Ctrl-C; the task is gone.
    """
    require(plan.cpus, f"fitting {plan.name}")
    task = ray.remote(_work).options(
        num_cpus=plan.cpus, max_retries=max_failures, num_returns="streaming"
    )
    results = task.remote(plan)
    try:
        with interruptible():
            for reference in results:
                if isinstance(result := ray.get(reference), Fitted):
                    return result
                say(result)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UpdraftError) else error) from error
    except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
        raise EnvironmentProblem(
            f"the process that fit {plan.name} died, {max_failures + 1} time(s) in all; they are "
            "killed so where memory runs out: use a machine with more memory"
        ) from error
    except KeyboardInterrupt:
        ray.cancel(results, force=True)
        raise
    raise EnvironmentProblem(f"fitting {plan.name} ended without a result")


def as_it_can(
    plan: Plan, training: Mapping[str, Any], *, workers: int = 1, gpu: bool = False, say: Say
) -> Plan:
    """The plan as a learner can carry it out; what of it it can't is said in a sentence."""
    if workers > 1:
        say(f"{plan.name} is fit in one process: 1 worker is used, not {workers}")
    if gpu:
        say(f"{plan.name} is fit on CPUs: the GPU is left alone")
    if unused := sorted(set(training) - {"seed"}):
        say(f"{plan.name} has no epochs: model.training ({', '.join(unused)}) has no part in it")
    most = max(MOST_BYTES // plan.recipe.row_bytes, 1)
    if (count := count_rows(plan.source)) <= most:
        return replace(plan, streamed=False)
    say(f"{plan.name} holds its rows in memory: about {most:,} of {count:,} are taken")
    return replace(plan, streamed=False, rows=most)


def _work(plan: Plan) -> Iterator[str | Fitted]:
    """What the task does: sentences, then the learner."""
    said: SimpleQueue[str | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        fitting = pool.submit(_fit, plan, said.put)
        fitting.add_done_callback(lambda _: said.put(None))
        while (sentence := said.get()) is not None:
            yield sentence
    yield fitting.result()


def _fit(plan: Plan, say: Say) -> Fitted:
    prepared = load(plan.source, plan.recipe, rows=plan.rows, seed=plan.training.seed)
    return fit_here(plan, prepared.train, Validation.of(prepared), say)
