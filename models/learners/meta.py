"""Base of the meta-learners over trees and networks: outcomes one by one, each a list of models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from models.data import Batch, Shape
from models.learners.base import Learner, quiet
from models.learners.boosting import Base, Trees, features, grid_of, limited
from models.learners.problem import Problem, make_problem

Models = dict[str, Any]  # lists of models, by their part in the learner


class MetaLearner(Learner):
    """A learner whose subclass fits and answers one outcome."""

    def __init__(self, shape: Shape, config: Any) -> None:
        super().__init__(shape, config)
        self.config = config
        self.grid: list[np.ndarray] = []
        self.models: list[Models] = []

    def base(self, categorical: list[int], seed: int) -> Base:
        """What fits its regressions: boosted trees."""
        return Trees(self.config, categorical, seed)

    @abstractmethod
    def fit_outcome(self, problem: Problem) -> Models:
        """Everything that is learned about one outcome."""

    @abstractmethod
    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        """One outcome of rows [N, F] under every arm, [N, A]."""

    def fit(
        self,
        rows: Batch,
        *,
        validation: Batch | None = None,
        seed: int = 0,
        threads: int = 1,
        say: Callable[[str], None] = quiet,
    ) -> Self:
        self.check_installed()
        kinds = self.shape.outcomes
        numeric, ids = self.shape.numeric, len(self.shape.categories)
        self.grid = grid_of(rows.x_num.cpu().numpy())
        models = []
        with limited(threads):
            for k, kind in enumerate(kinds):
                where = f"outcome {k + 1} of {len(kinds)}"
                problem = make_problem(
                    rows,
                    validation,
                    k,
                    arms=self.shape.arms,
                    binary=kind == "binary",
                    grid=self.grid,
                    base=self.base(list(range(numeric, numeric + ids)), seed),
                    folds=getattr(self.config, "folds", 2),
                    seed=seed,
                    threads=threads,
                    say=_within(where, say),
                )
                models.append(self.fit_outcome(problem))
        self.models = models
        return self

    def links(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        x = features(x_num, x_cat, self.grid)
        return np.stack([self.answer_outcome(models, x) for models in self.models], axis=2)

    def state(self) -> Any:
        return {"grid": self.grid, "outcomes": self.models}

    def restore(self, state: Any) -> None:
        self.grid, self.models = state["grid"], state["outcomes"]


def _within(where: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda sentence: say(f"{where}, {sentence}")
