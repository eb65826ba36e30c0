"""What became of the trials of a search, kept while they run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError

from campaigns.errors import EnvironmentProblem, UpdraftError
from models.progress import Say

SCORE = "validation/score"  # as Tune calls what the trials report


@dataclass
class Record:
    """One trial.

    Attributes:
        config: Its settings, ``{"net": {...}, "training": {...}}``.
        scores: After each epoch.
        seconds: How long it ran.
        status: running, finished, stopped (early) or failed.
        error: Why it failed.
    """

    config: dict[str, Any]
    begin: float
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    status: str = "running"
    error: str = ""

    @property
    def score(self) -> float:
        """The best epoch's; nan before there is one."""
        return max(self.scores, default=float("nan"))


class Journal(tune.Callback):
    """Follows the trials of a search, from the process that started it.

    Args:
        trials, epochs: How many there are, and how long each is at most.
        say: Told of every trial that ends.
    """

    def __init__(self, trials: int, epochs: int, say: Say) -> None:
        self.trials, self.epochs, self.say = trials, epochs, say
        self._records: dict[str, Record] = {}
        self._order: list[str] = []
        self.failure: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to storage, and this one is of this process alone."""
        return {}

    @property
    def records(self) -> list[Record]:
        """The trials in the order they were proposed."""
        return [self._records[each] for each in self._order if each in self._records]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(trials, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._records[trial.trial_id]
        part, name = SCORE.split("/")
        record.scores.append(float(result[part][name]))
        record.seconds = time.monotonic() - record.begin

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._records[trial.trial_id]
        record.status = "finished" if len(record.scores) >= self.epochs else "stopped"
        self._tell(record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed, by its own fault or because its node was lost, and begins again."""
        record = self._record(trials, trial)
        record.scores.clear()
        number = self._order.index(trial.trial_id) + 1
        self.say(f"trial {number} of {self.trials}: begins again ({_reason(trial)})")
        error = trial.get_error()
        if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
            trial.max_failures = 0  # its own fault: likely so every time, and twice will do

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trials, trial)
        if record.status in ("finished", "stopped"):
            return  # its process was lost after it had ended
        error = trial.get_error()
        cause = error.cause if isinstance(error, RayTaskError) else error
        record.status, record.error = "failed", _reason(trial)
        self.failure = self.failure or cause
        self._tell(record)

    def _record(self, trials: list[Any], trial: Any) -> Record:
        # One that begins again is the last of Tune's list.
        self._order += [one.trial_id for one in trials if one.trial_id not in self._order]
        return self._records.setdefault(
            trial.trial_id, Record(dict(trial.config), time.monotonic())
        )

    def _tell(self, record: Record) -> None:
        trial = next(name for name, each in self._records.items() if each is record)
        start = f"trial {self._order.index(trial) + 1} of {self.trials}"
        if record.status == "failed":
            self.say(f"{start}: failed ({record.error})")
            return
        epochs = f"{len(record.scores)} epoch{'s' if len(record.scores) != 1 else ''}"
        best = max(other.score for other in self.records if other.scores)
        place = "the best so far" if record.score == best else f"best so far {best:.4g}"
        self.say(f"{start}: score {record.score:.4g} after {epochs}, {place}")

    def best(self) -> Record:
        """The trial with the best score.

        Raises:
            UpdraftError: Every trial failed.
            KeyboardInterrupt: Ctrl-C stopped the search, after which Tune goes on as if it had ended.
        """
        if len(self.records) < self.trials or any(r.status == "running" for r in self.records):
            raise KeyboardInterrupt
        scored = [record for record in self.records if record.scores]
        if scored:
            return max(scored, key=lambda record: record.score)
        if isinstance(self.failure, UpdraftError):
            raise self.failure
        raise EnvironmentProblem(
            f"every trial of the search failed, the first with: {self.failure}"
        )

    def table(self) -> pd.DataFrame:
        """A row a trial (see ``SearchResult``)."""
        return pd.DataFrame(
            [
                {
                    "trial": number,
                    **{
                        f"{part}.{setting}": value
                        for part, settings in record.config.items()
                        for setting, value in settings.items()
                    },
                    "score": record.score,
                    "scores": record.scores,
                    "epochs": len(record.scores),
                    "seconds": round(record.seconds, 3),
                    "status": record.status,
                    "error": record.error,
                }
                for number, record in enumerate(self.records)
            ]
        )


def _reason(trial: Any) -> str:
    """Why a trial failed, in a line."""
    error = trial.get_error()
    if error is None or isinstance(error, RayActorError):
        return "its process or its node was lost"
    cause = error.cause if isinstance(error, RayTaskError) else error
    return str(cause).strip().splitlines()[-1]
