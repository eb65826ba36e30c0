"""What every learner of the catalogue is: fit once, asked as nets are, saved without pickles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import ZIP_DEFLATED, BadZipFile

import numpy as np

from campaigns.errors import DataError, EnvironmentProblem
from models.data import Batch, Shape
from models.space import Config

FILE = "learner.skops"
# What a saved learner may hold beside plain values, arrays and scikit-learn's own estimators (which
# skops knows): the insides of HistGradientBoosting. Names are exact, so nothing else is ever made.
TRUSTED = frozenset(
    {
        "functools.partial",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.utils.validation.check_array",
        "models.learners.perceptron.Perceptron",
    }
)


def quiet(sentence: str) -> None:
    """Say nothing."""


class Learner(ABC):
    """Base of the learners; a subclass answers :meth:`fit`, :meth:`links` and gives its state.

    Targets come scaled as nets see them, and answers go back in the same units.

    Attributes:
        library: What fitting needs beyond what Updraft always has, and ``extra``, which brings it.

    Args:
        shape: The campaign's shape.
        config: The learner's settings.
    """

    library: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __init__(self, shape: Shape, config: Config) -> None:
        self.shape = shape

    @classmethod
    def check_installed(cls) -> None:
        """Refuse to fit where the library that fitting needs is missing.

        Raises:
            EnvironmentProblem: Which one, and how to install it.
        """
        if cls.library and find_spec(cls.library) is None:
            raise EnvironmentProblem(
                f"{cls.__name__} is fit by the library '{cls.library}', which isn't installed; "
                f"pip install 'updraft[{cls.extra}]'"
            )

    @abstractmethod
    def fit(
        self,
        rows: Batch,
        *,
        validation: Batch | None = None,
        seed: int = 0,
        threads: int = 1,
        say: Callable[[str], None] = quiet,
    ) -> Self:
        """Learn from rows, on the CPU.

        Args:
            rows: Training rows.
            validation: Rows that say when to stop; None: some units of ``rows`` are set aside.
            seed: Equal seeds and rows give equal learners.
            threads: To compute on.
            say: Told of every model that is fit, in a sentence.

        Raises:
            DataError: There is nothing to learn from.
            EnvironmentProblem: A library is missing.
        """

    @abstractmethod
    def links(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        """Expected outcomes under every arm, binary ones not yet within [0, 1]; [N, A, K]."""

    @abstractmethod
    def state(self) -> Any:
        """What was learned: dicts, lists, numbers, arrays and scikit-learn estimators."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Take up :meth:`state` again."""

    @property
    def learns_from_validation(self) -> bool:
        """Whether it also learns from the rows that it was given to stop by."""
        return False

    def potential_outcomes(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        """Expected outcomes under every arm, [N, A, K] float32; uplift is arm a minus arm 0.

        Binary outcomes as nets answer them: control is clipped into [0, 1], then control plus each
        arm's effect.

        Args:
            x_num, x_cat: Encoded features, [N, F_n] and [N, F_c].
        """
        return self.within(self.links(x_num, x_cat))

    def within(self, links: np.ndarray) -> np.ndarray:
        """Links [..., A, K] with binary outcomes within [0, 1], float32."""
        binary = np.array([kind == "binary" for kind in self.shape.outcomes])
        floor, top = np.where(binary, 0.0, -np.inf), np.where(binary, 1.0, np.inf)
        control = links[..., :1, :].clip(floor, top)
        return (control + (links - links[..., :1, :])).clip(floor, top).astype(np.float32)

    def member_outcomes(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray | None:
        """What each draw of a posterior expects, [M, N, A, K] float32; None of a learner without one."""
        return None

    def save(self, folder: Path) -> None:
        """Write what was learned into a folder; skops stores no pickles."""
        import skops.io

        skops.io.dump(self.state(), folder / FILE, compression=ZIP_DEFLATED)

    def load(self, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: The file holds types that a learner has no use for, or can't be read.
            FileNotFoundError: It is missing.
        """
        import skops.io

        place = folder / FILE
        try:
            foreign = sorted(set(skops.io.get_untrusted_types(file=place)) - TRUSTED)
            if foreign:
                raise DataError(
                    f"{place}: holds {', '.join(foreign[:3])}, which no learner of ours is made of; "
                    "it is not loaded: train the model again"
                )
            self.restore(skops.io.load(place, trusted=sorted(TRUSTED)))
        except (BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{place}: can't be read ({reason}); train the model again") from error
        return self
