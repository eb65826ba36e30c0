"""What a model, or scores that somebody brings, are worth on logged rows: all that can be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from campaigns.errors import DataError, choices
from campaigns.objective import arm_costs
from campaigns.spec import Campaign
from models.gate import paired_gain
from models.metrics import Interval
from models.uplift_evaluation import UpliftEvaluation, evaluate_scores, evaluate_uplift
from models.uplift_model import UpliftModel
from serving.evaluation import (
    BEST_ARM,
    NOBODY,
    Estimate,
    HeldOut,
    PolicyScore,
    by_every_estimator,
    constant_policies,
    held_out,
    model_policy,
    score_policy,
)

MODEL, SCORES = "model", "scores"
SCORE = "score"  # a column of scores where there is a single treated arm
FLATTERED = "Its arm was picked on these very rows, which flatters it."


@dataclass(frozen=True)
class Judgement:
    """What was found.

    Attributes:
        campaign: With features spelled out.
        judged: What was judged, in words.
        log: The rows that policies were judged on.
        evaluation: Metrics, curves, calibration.
        policies: Nobody, best arm and random arm within the budget, and last what was judged.
        estimates: The last one's value by every estimator.
        notes: What to know when reading it; the first says which rows were used.
    """

    campaign: Campaign
    judged: str
    log: HeldOut
    evaluation: UpliftEvaluation
    policies: list[PolicyScore]
    estimates: list[Estimate]
    notes: list[str] = field(default_factory=list)

    def gain(self, score: PolicyScore) -> Interval | None:
        """What a policy earns more than treating nobody, paired; None for nobody itself."""
        nobody = next(each for each in self.policies if each.name == NOBODY)
        if score is nobody:
            return None
        confidence = self.campaign.gate.confidence
        return paired_gain(score.contributions, nobody.contributions, confidence)

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able but for numbers that aren't defined (NaN)."""
        found, names = self.evaluation, self.campaign.arm_table.names
        return {
            "campaign": self.campaign.name,
            "judged": self.judged,
            "held_out": found.held_out,
            "rows": found.rows,
            "notes": self.notes,
            "budget_per_unit": self.log.budget_per_unit,
            "metrics": [asdict(row) for row in found.table],
            "curves": [asdict(band) for band in found.bands],
            "policy_curve": None if found.policy is None else asdict(found.policy),
            "calibration": [asdict(tenths) for tenths in found.deciles],
            "policies": [
                {
                    "name": score.name,
                    "value": asdict(score.value),
                    "gain": None if (gain := self.gain(score)) is None else asdict(gain),
                    "cost": score.cost,
                    "mix": dict(zip(names, score.mix.tolist())),
                    "price": score.price,
                    "warning": score.warning,
                }
                for score in self.policies
            ],
            "estimators": [asdict(each) for each in self.estimates],
        }


def judge_model(
    model: UpliftModel,
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    name: str,
    metrics: Sequence[str] | None = None,
    convention: str = "updraft",
    seed: int = 0,
) -> Judgement:
    """Judge a model of ours on the explored rows of units that it never saw.

    Args:
        model: It answers for the same arms and outcomes as the campaign.
        frame: A decision frame.
        campaign: With features spelled out.
        name: What to call the model.
        metrics, convention: As in :func:`models.uplift_evaluation.evaluate_uplift`.
        seed: Of the bootstrap and of the cross-fitted outcome model.

    Raises:
        DataError: There are too few rows, or the model answers another question.
    """
    require_same_question(model, campaign)
    log = held_out(frame, campaign, seed=seed)
    evaluation = evaluate_uplift(
        model, frame, campaign, metrics=metrics, convention=convention, seed=seed
    )
    mine = model_policy(MODEL, model.predict(log.rows), log, campaign)
    note = (
        f"Judged on {evaluation.rows:,} randomized rows of the test fold: units that no model of this "
        "campaign was trained on."
    )
    return _judged(name, log, evaluation, mine, frame, campaign, [note])


def judge_scores(
    scores: np.ndarray,
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    name: str,
    worth: bool = False,
    metrics: Sequence[str] | None = None,
    convention: str = "updraft",
    seed: int = 0,
) -> Judgement:
    """Judge scores of any model on all randomized rows.

    Args:
        scores: Of each arm, higher is treated first, [N, A]; control's are 0 (:func:`read_scores`).
        frame: A decision frame, N rows.
        worth: Scores are expected values in the budget's unit (:func:`serving.evaluation.score_policy`).
        campaign, name, metrics, convention, seed: As in :func:`judge_model`.

    Raises:
        DataError: There are too few rows.
    """
    names = [f"{SCORE} of {arm}" for arm in campaign.arm_table.names]
    frame = frame.assign(**dict(zip(names, scores.T)))
    log = held_out(frame, campaign, seed=seed, everybody=True)
    costs = arm_costs(frame, campaign)
    evaluation = evaluate_scores(
        scores, costs, frame, campaign, metrics=metrics, convention=convention, seed=seed
    )
    mine = score_policy(SCORES, log.rows[names].to_numpy(), log, campaign, worth=worth)
    notes = [
        f"Judged on all {evaluation.rows:,} randomized rows: scores of a model that learned from any "
        "of them look better than they are."
    ]
    notes += [
        f"The scores of {arm} are all {scores[0, a]:g}: they rank nobody."
        for a, arm in enumerate(campaign.arm_table.names)
        if a and (scores[:, a] == scores[0, a]).all()
    ]
    return _judged(name, log, evaluation, mine, frame, campaign, notes)


def read_scores(
    table: pd.DataFrame, frame: pd.DataFrame, campaign: Campaign, where: str
) -> np.ndarray:
    """Scores of a table in the order of a decision frame.

    Args:
        table: A column a treated arm, by its name (or ``score`` where there is a single one), and
            ``decision_id``, or else the frame's rows in their order.
        frame: N rows.
        campaign: Gives the arms.
        where: How to call the table in an error.

    Returns:
        [N, A], control's 0.

    Raises:
        DataError: A column or a row is missing, a score is no finite number, or none of them ranks.
    """
    treated = list(campaign.arm_table.names[1:])
    single = len(treated) == 1 and treated[0] not in table.columns and SCORE in table.columns
    wanted = [SCORE] if single else treated
    missing = [arm for arm in wanted if arm not in table.columns]
    if missing:
        raise DataError(
            f"{where}: column {choices(missing)} is missing; it needs a score for each treated arm "
            f"({', '.join(treated)}), and it has {choices(map(str, table.columns))}"
        )
    rows = _aligned(table, frame, where)
    scores = np.zeros((len(frame), len(treated) + 1))
    for a, column in enumerate(wanted, start=1):
        numbers = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = int((~np.isfinite(numbers)).sum())
        if wrong:
            raise DataError(
                f"{where}: column '{column}': {wrong} of {len(numbers)} scores are no finite number; "
                "score every row"
            )
        scores[:, a] = numbers
    if (scores == scores[0]).all():
        raise DataError(
            f"{where}: every row has the score {scores[0, 1]:g}; a constant ranks nobody, so there is "
            "nothing to evaluate"
        )
    return scores


def _aligned(table: pd.DataFrame, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    if "decision_id" not in table.columns:
        if len(table) != len(frame):
            raise DataError(
                f"{where}: has {len(table)} rows for {len(frame)} decisions and no decision_id; "
                "give one score a row, or the decision_id of each"
            )
        return table
    known = table.assign(decision_id=table["decision_id"].astype(str))
    if known["decision_id"].duplicated().any():
        twice = known.loc[known["decision_id"].duplicated(), "decision_id"].iloc[0]
        raise DataError(f"{where}: decision {twice!r} comes twice; score each once")
    rows = known.set_index("decision_id").reindex(frame["decision_id"])
    unknown = ~frame["decision_id"].isin(known["decision_id"]).to_numpy()
    if unknown.any():
        raise DataError(
            f"{where}: has no score for {int(unknown.sum())} of {len(frame)} decisions, such as "
            f"{frame['decision_id'][unknown].iloc[0]!r}; score every row"
        )
    return rows


def require_same_question(model: UpliftModel, campaign: Campaign) -> None:
    """Refuse a model of another campaign, or one that answers for other arms or outcomes.

    Raises:
        DataError: It is.
    """
    theirs = model.campaign
    for what, mine, other in (
        ("campaign", campaign.name, theirs.name),
        ("arms", list(campaign.arm_table.names), list(theirs.arm_table.names)),
        ("outcomes", list(campaign.outcomes), list(theirs.outcomes)),
    ):
        if mine != other:
            raise DataError(
                f"model: was trained for {what} {other}, and the campaign file says {mine}; "
                "name a model of this campaign, or train one"
            )


def _judged(
    name: str,
    log: HeldOut,
    evaluation: UpliftEvaluation,
    mine: PolicyScore,
    frame: pd.DataFrame,
    campaign: Campaign,
    notes: list[str],
) -> Judgement:
    rivals = constant_policies(log, frame, campaign)
    if not evaluation.held_out:
        rivals = [each.warned(FLATTERED) if each.name == BEST_ARM else each for each in rivals]
    if log.budget_per_unit == 0:
        notes = [*notes, "The budget is 0: within it only arms that cost nothing are given."]
    estimates = by_every_estimator(mine, log, campaign)
    return Judgement(campaign, name, log, evaluation, [*rivals, mine], estimates, notes)
