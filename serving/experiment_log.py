"""What an experiment's units did: its decisions and their outcomes, one row a unit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from campaigns.errors import DataError, choices
from campaigns.experiment import Experiment
from campaigns.frame import unit_ids, words
from campaigns.objective import realised
from campaigns.spec import Campaign
from models.checks.covariates import covariate_columns
from models.readout import ExperimentLog
from serving.policy.buckets import buckets
from serving.policy.hashing import uniform

ORDER = "order"  # of units that came at the same moment


def joined(decisions: pd.DataFrame, outcomes: pd.DataFrame, campaign: Campaign) -> pd.DataFrame:
    """Decisions with their outcomes, by decision_id if both have it, else by unit.

    A decision without a row of outcomes gets what ``attribution.absent`` says: 0, or nan.

    Raises:
        DataError: A column is missing, or an outcome's row comes twice.
    """
    if "decision_id" in decisions.columns and "decision_id" in outcomes.columns:
        left, right = decisions["decision_id"].astype(str), outcomes["decision_id"].astype(str)
        key = "decision_id"
    else:
        left, key = _ids(decisions, campaign, "decisions"), "unit"
        if pd.Series(left).duplicated().any():
            raise DataError(
                "decisions: a unit comes twice; outcomes then need a decision_id, to say of which"
            )
        right = _ids(outcomes, campaign, "outcomes")
    if (twice := pd.Series(right).duplicated()).any():
        first = np.asarray(right)[twice.to_numpy()][0]
        raise DataError(f"outcomes: {key} {first!r} comes twice; give one row of outcomes each")
    _require(outcomes, list(campaign.outcomes), "outcomes")
    places = pd.Index(right).get_indexer(pd.Index(left))
    absent = 0.0 if campaign.attribution.absent == "zero" else np.nan
    columns = {}
    for name in campaign.outcomes:
        values = _numbers(outcomes, name, "outcomes")
        columns[name] = np.where(places >= 0, values[places], absent) if len(values) else absent
    return decisions.drop(columns=list(columns), errors="ignore").assign(**columns)


def unit_log(
    frame: pd.DataFrame, experiment: Experiment, campaign: Campaign, where: str
) -> ExperimentLog:
    """One row a unit from one row a decision.

    The variant is drawn again from the unit's id; a column ``variant`` must agree. Outcomes, worth and
    cost are summed over a unit's decisions; features count as they were at its first.

    Args:
        frame: Decisions: the unit, the arm (``arm``, ``arm_name`` or the factors' columns), the outcomes;
            if there, ``decided_at``, ``holdout``, ``variant``, ``model_version`` and the features.
        experiment: The variants.
        campaign: With features spelled out.
        where: How to call the frame in an error.

    Raises:
        DataError: A column is missing or holds nonsense, variants don't agree, or nobody is left.
    """
    if not len(frame):
        raise DataError(f"{where}: has no rows; an experiment is read from its decisions")
    frame, notes = _counted(frame.reset_index(drop=True), experiment, where)
    ids = _ids(frame, campaign, where)
    variant = buckets(ids, experiment.shares, salt=experiment.salt, experiment=experiment.name)
    _agreeing(frame, variant, experiment, where)
    notes += _versions(frame, variant, experiment)
    arm = _arms(frame, campaign, where)
    observed = np.column_stack([_numbers(frame, name, where) for name in campaign.outcomes])
    if np.isnan(observed).all():
        raise DataError(f"{where}: no decision has an outcome yet; read it when some are observed")
    worth, cost = realised(observed, arm, campaign)

    lot = uniform(ids, salt=experiment.salt, epoch=experiment.name, purpose=ORDER)
    when = _moments(frame)
    order = np.lexsort((lot, when)) if when is not None else np.argsort(lot, kind="stable")
    _, first, code = np.unique(ids[order], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # units in the order of their first decisions
    code, head = rank[code], order[np.sort(first)]
    if len(head) < len(ids):
        notes.append(
            f"{len(ids):,} decisions on {len(head):,} units: what a unit did and cost is added up."
        )

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(code, weights=values[order], minlength=len(head))

    x, lacking = _covariates(frame.iloc[head], campaign)
    if lacking:
        notes.append(f"Not adjusted for {choices(lacking)}: {where} has no such column.")
    return ExperimentLog(
        variant=variant[head],
        when=None if when is None else when[head],
        outcomes={name: total(observed[:, k]) for k, name in enumerate(campaign.outcomes)},
        worth=total(worth),
        cost=total(cost),
        covariates=x,
        decisions=len(ids),
        notes=notes,
    )


def _counted(
    frame: pd.DataFrame, experiment: Experiment, where: str
) -> tuple[pd.DataFrame, list[str]]:
    """The decisions that count: since the start, and not on held-out units."""
    notes = []
    if "holdout" in frame.columns:
        frame = frame[~frame["holdout"].astype(bool)]
    moments = _moments(frame)
    if moments is not None:
        start = np.datetime64(experiment.start.replace(tzinfo=None), "us")
        if early := int((moments < start).sum()):
            frame = frame[moments >= start]
            notes.append(f"{early:,} decisions from before the start are left out.")
    if not len(frame):
        raise DataError(
            f"{where}: no decision since {experiment.start.isoformat()} on a unit that takes part; "
            "look at 'start'"
        )
    return frame.reset_index(drop=True), notes


def _agreeing(frame: pd.DataFrame, variant: np.ndarray, experiment: Experiment, where: str) -> None:
    if "variant" not in frame.columns:
        return
    given = words(frame["variant"])
    if unknown := sorted({str(each) for each in given} - set(experiment.names)):
        raise DataError(
            f"{where}: variant {unknown[0]!r} is none of the experiment's: "
            f"{choices(experiment.names)}"
        )
    other = int((given != np.array(experiment.names, dtype=object)[variant]).sum())
    if other:
        raise DataError(
            f"{where}: {other:,} of {len(given):,} decisions were made by another variant than the "
            "unit's own; name, salt, shares and order of variants must stay as they were at the start "
            "(and so must ids: a CSV loses leading zeros)"
        )


def _versions(frame: pd.DataFrame, variant: np.ndarray, experiment: Experiment) -> list[str]:
    """A note for each variant that several models decided for: it is no single policy."""
    if "model_version" not in frame.columns:
        return []
    given, notes = words(frame["model_version"]), []
    for place, name in enumerate(experiment.names):
        known = sorted({str(each) for each in given[variant == place] if each is not None})
        if len(known) > 1:
            notes.append(f"{name}: model versions {choices(known)} decided; its mean is theirs.")
    return notes


def _arms(frame: pd.DataFrame, campaign: Campaign, where: str) -> np.ndarray:
    """Index of the arm that was given, [N]."""
    table = campaign.arm_table
    if "arm_name" in frame.columns:
        found = pd.Index(table.names).get_indexer(words(frame["arm_name"]))
    elif "arm" in frame.columns:
        numbers = _numbers(frame, "arm", where)
        found = np.where(np.isin(numbers, np.arange(len(table))), numbers, -1).astype(np.int64)
    else:
        columns = [campaign.treatments[name].column for name in table.factors]
        _require(frame, columns, where)
        given = pd.MultiIndex.from_arrays([words(frame[column]) for column in columns])
        found = pd.MultiIndex.from_tuples(table.level_names).get_indexer(given)
    if (found < 0).any():
        row = int(np.flatnonzero(found < 0)[0])
        raise DataError(
            f"{where}, row {row}: gives what is no arm of {campaign.name}; its arms are "
            f"{choices(table.names)}"
        )
    return np.asarray(found, dtype=np.int64)


def _covariates(rows: pd.DataFrame, campaign: Campaign) -> tuple[np.ndarray, list[str]]:
    there = {
        key: [name for name in getattr(campaign.features, key) if name in rows.columns]
        for key in ("numeric", "categorical")
    }
    lacking = [
        n for n in campaign.features.names if n not in there["numeric"] + there["categorical"]
    ]
    if not any(there.values()):
        return np.zeros((len(rows), 0)), lacking
    known = campaign.model_copy(update={"features": type(campaign.features)(**there)})
    return covariate_columns(rows, known)[0], lacking


def _ids(table: pd.DataFrame, campaign: Campaign, where: str) -> np.ndarray:
    key = "unit_id" if "unit_id" in table.columns else campaign.unit
    _require(table, [key], where)
    if missing := int(table[key].isna().sum()):
        raise DataError(f"{where}: {missing} rows have no {key}")
    return unit_ids(table[key])


def _moments(frame: pd.DataFrame) -> np.ndarray | None:
    """UTC moments, datetime64[us] [N], where the frame has them."""
    if "decided_at" not in frame.columns:
        return None
    found = pd.to_datetime(frame["decided_at"], utc=True, errors="coerce", format="ISO8601")
    if found.isna().any():
        row = int(np.flatnonzero(found.isna())[0])
        seen = frame["decided_at"].iloc[row]
        raise DataError(f"decided_at, row {row}: {seen!r} is no time; write UTC timestamps")
    return found.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")


def _numbers(table: pd.DataFrame, name: str, where: str) -> np.ndarray:
    _require(table, [name], where)
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.isinf(values) | (np.isnan(values) & table[name].notna().to_numpy())
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}, column {name!r}, row {row}: {table[name].iloc[row]!r} is no finite number"
        )
    return values


def _require(table: pd.DataFrame, columns: list[str], where: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"{where}: {choices(missing)} missing; it has {choices(map(str, table.columns))}"
        )
