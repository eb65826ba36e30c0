"""Allocate over a unit table that Ray Data holds: on many machines, in whatever blocks.

Workers answer with sums and with a few units, never with rows by the million; those sums are exact, so
the answer is the one that `serving.policy.planning` finds in a single process.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.policy.planning import Plan
from serving.policy.portions import ROWS, Portion, Result

if TYPE_CHECKING:
    import ray.data

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class DatasetPortions:
    """A dataset as portions for `serving.policy.planning.plan`, which goes through it many times.

    Attributes:
        dataset: One row a unit. Where making it is dear (a model's predictions), materialize it first.
        portion: Makes some rows (columns by name, [n] each) a portion; must not depend on which rows
            come together, and is sent to workers.
    """

    dataset: ray.data.Dataset
    portion: Callable[[Batch], Portion]

    def map(self, work: Callable[[Portion], Result]) -> Iterator[Result]:
        """What `work` answers for each portion, in the order in which workers are done."""
        portion = self.portion

        def answer(batch: Batch) -> dict[str, list[bytes]]:
            return {"answer": [pickle.dumps(work(portion(batch)))]}

        answers = self.dataset.map_batches(answer, batch_size=ROWS, batch_format="numpy")
        for row in answers.iter_rows():
            yield pickle.loads(row["answer"])

    def given(self, plan: Plan) -> ray.data.Dataset:
        """The dataset with the column `arm`, as planned for it."""
        portion = self.portion

        def with_arm(batch: Batch) -> dict[str, Any]:
            return {**batch, "arm": plan.arms(portion(batch))}

        return self.dataset.map_batches(with_arm, batch_size=ROWS, batch_format="numpy")
