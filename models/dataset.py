"""From a decision frame to the tensors a net trains on, in memory or streamed.

One :class:`Recipe` (campaign, encoder, outcome scaling: a few kilobytes) turns any piece of a frame
into rows, so every worker can read the frame by itself, whole or as a stream, and see the same.

Which rows count (p: probability of the arm given, A: number of arms):

* trial rows (explored): weight 1, p as drawn. They alone are the unconfounded contrast.
* exploited rows (chosen by a policy): weight 1 / (A p), kept within ``WEIGHTS``, so that what the
  policy gives most often doesn't crowd out the rest.
* holdout rows are never trained on; units of the test fold (``models/split.py``) never enter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import dataset as arrow

from campaigns.errors import DataError
from campaigns.pieces import piece_rows
from campaigns.spec import Campaign
from campaigns.storage import parquet, reaching
from models.data import Batch, OutcomeScaler, Shape
from models.encoding import Encoder
from models.growing import GrowingBatch
from models.split import SHARES, TRAIN, VALIDATION, fold_of, folds, keys

Source: TypeAlias = "pd.DataFrame | str | Path"

WEIGHTS = (0.1, 10.0)  # of exploited rows: one row must not decide, nor be for nothing
DIRECTED_WEIGHTS = (
    1.0,
    1.0,
)  # the same where draws are directed: weights of up to 10 made models worse
FIT_ROWS, FIT_CELLS = 200_000, 2**25  # what encoder and scaling are fit on, at most (about)
STREAM_BYTES = 4 * 2**30  # tensors larger than this are streamed
KEY = "_unit_key"
NEEDED = "unit_id arm propensity explored explored_propensity holdout".split()


@dataclass(frozen=True)
class Recipe:
    """How a campaign's frame becomes tensors.

    Attributes:
        campaign: With ``'*'`` among its features expanded.
        encoder, scaler: Fit on training rows only.
        shape: What a net is told.
        randomized: Whether rows that a policy chose are left out, for nets that can't use them.
    """

    campaign: Campaign
    encoder: Encoder
    scaler: OutcomeScaler
    shape: Shape
    randomized: bool = False

    @property
    def columns(self) -> list[str]:
        """The frame's columns that are read."""
        return _columns(self.campaign)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as tensors."""
        doses = self.shape.factors if self.shape.dosed else 1
        floats = self.shape.numeric + 2 * self.shape.outcome_count + 2 + doses
        return 4 * floats + 8 * (len(self.shape.categories) + 2)

    def batch(self, rows: pd.DataFrame) -> Batch:
        """Tensors of some of :meth:`rows_of`, with outcomes scaled for training."""
        x_num, x_cat = self.encoder.encode(_arrays(rows, self.campaign.features.names))
        arm, explored = rows["arm"].to_numpy(np.int64), rows["explored"].to_numpy(bool)
        given = rows["propensity"].to_numpy(np.float64)
        bounds = DIRECTED_WEIGHTS if self.campaign.exploration.asks_members else WEIGHTS
        exploited = np.clip(1.0 / (self.shape.arms * given), *bounds)
        return Batch.of(
            x_num,
            x_cat,
            arm,
            self.scaler.apply(_outcomes(rows, self.campaign)),
            propensity=np.where(explored, rows["explored_propensity"].to_numpy(float), given),
            weight=np.where(explored, 1.0, exploited),
            unit=rows[KEY].to_numpy().view(np.int64),
            dose=_doses(rows, self.campaign),
        )

    def rows_of(self, chunk: pd.DataFrame, *which: int) -> list[pd.DataFrame]:
        """The chunk's rows of each fold, without those that hold units out of treatment; their units'
        numbers are in the column ``KEY``.
        """
        chunk = chunk.assign(**{KEY: keys(chunk["unit_id"], self.campaign.name)})
        fold = fold_of(chunk[KEY].to_numpy())
        free = ~chunk["holdout"].to_numpy(bool)
        if self.randomized:
            free &= chunk["explored"].to_numpy(bool)
        return [chunk[free & (fold == each)] for each in which]


@dataclass(frozen=True)
class Prepared:
    """A frame ready to train on.

    Attributes:
        recipe: How it was made.
        train, validation: Rows of the two folds.
        trial: Whether each validation row is of the randomized trial, [rows] bool.
    """

    recipe: Recipe
    train: Batch
    validation: Batch
    trial: torch.Tensor


def fit_recipe(
    source: Source, campaign: Campaign, *, rows: int | None = None, seed: int = 0
) -> Recipe:
    """Fit the encoder and the outcomes' scaling on training rows: a seeded sample where there are many.

    Args:
        source: A decision frame (``campaigns/frame.py``): a DataFrame, or the path or URI of Parquet.
        campaign: With ``'*'`` among its features expanded.
        rows: About how many rows to fit on at most; default: 200,000, fewer of more than 160 features.
        seed: Of that sample.

    Raises:
        DataError: The frame can't be read, lacks a column, or has no row to train on.
    """
    outcomes = list(campaign.outcomes)
    columns = _columns(campaign)
    rows = rows or min(FIT_ROWS, FIT_CELLS // len(campaign.features.names))
    rate = rows / max(count_rows(source) * SHARES[TRAIN], 1.0)
    parts = []
    for chunk in _sampled(_chunks(source, columns), rate, seed):
        free = ~chunk["holdout"].to_numpy(bool)
        parts.append(chunk[free & (folds(chunk["unit_id"], campaign.name) == TRAIN)])
    sample = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if sample.empty:
        raise DataError(
            f"{_name(source)}: no row to train on (units of the training fold, not held out); "
            "log more decisions"
        )
    features = campaign.features
    encoder = Encoder.fit(
        _arrays(sample, features.names), list(features.numeric), list(features.categorical)
    )
    kinds = [outcome.kind for outcome in campaign.outcomes.values()]
    scaler, paid = OutcomeScaler.fit(_outcomes(sample, campaign), kinds), campaign.cost_outcome
    shape = Shape(
        numeric=len(encoder.numeric_names),
        categories=encoder.categories,
        levels=tuple(map(tuple, campaign.arm_table.levels.tolist())),
        outcomes=tuple(kinds),
        sequence=tuple(outcomes.index(name) for name in campaign.sequence),
        worth=tuple((campaign.values * np.array(scaler.scale)).tolist()),
        costs=tuple(np.asarray(campaign.arm_table.costs, float).tolist()),
        cost_outcome=paid,
        cost_scale=1.0 if paid is None else scaler.scale[paid],
        doses=campaign.arm_table.doses,
    )
    return Recipe(campaign, encoder, scaler, shape)


def prepare(
    source: Source, campaign: Campaign, *, rows: int | None = None, seed: int = 0
) -> Prepared:
    """Read, encode and split a frame that fits in memory.

    Args:
        source: A decision frame: a DataFrame, or the path or URI of Parquet.
        campaign: With ``'*'`` among its features expanded.
        rows: About how many rows of the two folds to take, by a seeded draw; None for all.
        seed: Of that draw and of the encoder's sample.

    Raises:
        DataError: The frame can't be read, lacks a column, or one of the folds is empty.
    """
    return load(source, fit_recipe(source, campaign, seed=seed), rows=rows, seed=seed)


def load(
    source: Source,
    recipe: Recipe,
    *,
    rows: int | None = None,
    seed: int = 0,
    training: bool = True,
) -> Prepared:
    """As :func:`prepare`, with a recipe that is there already; chunk by chunk, to save memory.

    Args:
        training: False leaves the training rows out (they stream).
    """
    shares = SHARES[VALIDATION] + (SHARES[TRAIN] if training else 0.0)
    rate = 1.0 if rows is None else rows / max(count_rows(source) * shares, 1.0)
    learn, check, trial = GrowingBatch(), GrowingBatch(), []
    for chunk in _sampled(_chunks(source, recipe.columns), rate, seed):
        train, validation = recipe.rows_of(chunk, TRAIN, VALIDATION)
        learn.add(recipe.batch(train if training else train[:0]))
        check.add(recipe.batch(validation))
        trial.append(torch.from_numpy(validation["explored"].to_numpy(bool)))
    prepared = Prepared(recipe, learn.batch(), check.batch(), torch.cat(trial))
    if training and not len(prepared.train):
        raise DataError(f"{_name(source)}: no row in the training fold; log more units")
    if not len(prepared.validation):
        raise DataError(f"{_name(source)}: no row in the validation fold; log more units")
    return prepared


def fits_in_memory(source: Source, recipe: Recipe) -> bool:
    """Whether the frame's tensors stay below ``STREAM_BYTES``."""
    return count_rows(source) * recipe.row_bytes <= STREAM_BYTES


def count_rows(source: Source) -> int:
    """Rows of the frame; of Parquet, from its footers alone."""
    if isinstance(source, pd.DataFrame):
        return len(source)
    return int(_open(source).count_rows())


def _chunks(source: Source, columns: list[str]) -> Iterator[pd.DataFrame]:
    columns = list(dict.fromkeys(columns))
    there = source.columns if isinstance(source, pd.DataFrame) else _open(source).schema.names
    if missing := [name for name in columns if name not in there]:
        raise DataError(
            f"{_name(source)}: lacks column '{missing[0]}'; a decision frame of this campaign has "
            f"{', '.join(columns)}"
        )
    if isinstance(source, pd.DataFrame):
        yield source[columns]
        return
    rows = piece_rows(len(columns))
    with reaching(source):
        for batch in _open(source).to_batches(columns=columns, batch_size=rows, batch_readahead=2):
            yield batch.to_pandas()


def _open(source: str | Path) -> arrow.Dataset:
    try:
        with reaching(source):
            return parquet(source)
    except FileNotFoundError as error:
        raise DataError(f"{source}: is missing; give the path of a Parquet frame") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{source}: can't be read as Parquet ({error})") from error


def _sampled(chunks: Iterator[pd.DataFrame], rate: float, seed: int) -> Iterator[pd.DataFrame]:
    """Each row with probability ``rate``; which ones depends on the seed and their place only."""
    if rate >= 1.0:
        yield from chunks
        return
    draw = np.random.default_rng([seed, 20])
    for chunk in chunks:
        yield chunk[draw.random(len(chunk)) < rate]


def _arrays(rows: pd.DataFrame, names: list[str]) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy() for name in names}


def _outcomes(rows: pd.DataFrame, campaign: Campaign) -> np.ndarray:
    return rows[list(campaign.outcomes)].to_numpy(np.float64)


def _columns(campaign: Campaign) -> list[str]:
    """The frame's columns that training reads; of the factors, those that are doses."""
    dosed = [name for name, factor in campaign.treatments.items() if factor.dose]
    return [*NEEDED, *dosed, *campaign.features.names, *campaign.outcomes]


def _doses(rows: pd.DataFrame, campaign: Campaign) -> np.ndarray | None:
    """Where the doses given lie in their ranges, [N, C]; -1 where a factor is none."""
    if not any(factor.dose for factor in campaign.treatments.values()):
        return None
    columns = [
        factor.dose.position(rows[name].to_numpy(np.float64))
        if factor.dose
        else -np.ones(len(rows))
        for name, factor in campaign.treatments.items()
    ]
    return np.stack(columns, axis=1)


def _name(source: Source) -> str:
    return "the frame" if isinstance(source, pd.DataFrame) else str(source)
