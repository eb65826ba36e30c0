"""How wrong could hidden confounding make a run's effects? What the log allows to be asked, and answers.

Hidden is what decided about the arm, moves the outcome, and is in no column. Where it can be depends
on who chose the arms (:attr:`Confounding.source`):

* ``design``: at random, with probabilities that are known. Nothing hidden can have had a say.
* ``estimate``: nobody logged how (``propensity: estimate``); arms' shares stand in for probabilities.
  Whatever people or another system went by confounds the effects, and may be in no column.
* ``policy``: some rows are a policy's choices, with the probabilities that it stated. They are right
  where it is ours, and an assumption where the history is from elsewhere.

With ``design`` there is nothing to compute. Otherwise each arm's effect is asked how strong a
confounder must be to explain it away (``models/metrics/sensitivity.py``), on the held-out rows that
the effect rests on: all of them with the probabilities they state, but for rows whose arm was
certain, which hold no comparison.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.spec import Campaign
from models.metrics import Sensitivity, sensitivity

DESIGN, ESTIMATE, POLICY = "design", "estimate", "policy"
REPLICATES = 100  # each breakdown value draws them some 20 times
MOST_ROWS = 50_000  # beyond, a seeded draw: intervals are narrow enough
BASIS = {
    DESIGN: (
        "Every arm was drawn at random, with a probability that is known: nothing hidden can have "
        "had a say in who got which arm, so there is no hidden confounding of these effects."
    ),
    ESTIMATE: (
        "Nobody logged how the arms were chosen (propensity: estimate), so the arms' shares stand in "
        "for probabilities. If units got an arm for a reason that also moves the outcome, all effects "
        "on this page are off. A log of random draws is the only proof that none did."
    ),
    POLICY: (
        "The effects elsewhere on this page are of random draws and can't be confounded. The model has "
        "also learned from rows in which a policy chose the arm; the effects below count those too, "
        "with the probabilities that it stated. They can be off only if it went by something that is "
        "not in the log."
    ),
}


@dataclass(frozen=True)
class ArmConfounding:
    """How much hidden confounding it takes to change what is said of an arm and outcome."""

    arm: str
    outcome: str
    found: Sensitivity

    @property
    def sentence(self) -> str:
        """The finding for people; the effect itself stands beside it."""
        least, sure = self.found.breakdown, self.found.breakdown_interval
        if least == 1 or sure == 1:
            return "The effect may be 0 even without a hidden confounder."
        if math.isinf(least):
            said = "No hidden confounder of any strength that was tried explains the effect away"
        else:
            said = (
                "Something hidden would have to change a unit's odds of its arm "
                f"{_times(least)} to explain the effect away"
            )
        if math.isfinite(sure):
            said += f", and {_times(sure)} to make it uncertain"
        if self.found.e_value is not None:
            said += (
                f"; or be linked to both arm and outcome by risk ratios of "
                f"{self.found.e_value.estimate:.2f} (E-value)"
            )
        return f"{said}."


@dataclass(frozen=True)
class Confounding:
    """What a log says about hidden confounding.

    Attributes:
        source: Who chose the arms: ``design``, ``estimate`` or ``policy``.
        rows: Held-out rows that the effects rest on.
        effects: One an arm and outcome; none where the design rules confounding out.
    """

    source: str
    rows: int
    effects: list[ArmConfounding]

    @property
    def basis(self) -> str:
        """Why there can be hidden confounding, or can't."""
        return BASIS[self.source]


def hidden_confounding(held_out: pd.DataFrame, campaign: Campaign, *, seed: int = 0) -> Confounding:
    """How strong a hidden confounder must be to change each arm's effect.

    Args:
        held_out: Rows of the test fold of a decision frame.
        campaign: With features spelled out.
        seed: Of the bootstrap.
    """
    free = ~held_out["holdout"].to_numpy(bool)
    trial = free & held_out["explored"].to_numpy(bool)
    if campaign.propensity == ESTIMATE:
        source, used = ESTIMATE, trial
    elif (free & ~trial).any():
        source, used = POLICY, free
    else:
        return Confounding(DESIGN, int(trial.sum()), [])
    rows = held_out[used & (held_out["propensity"].to_numpy(float) < 1)]
    if len(rows) > MOST_ROWS:
        rows = rows.sample(MOST_ROWS, random_state=seed)
    given, propensity = rows["arm"].to_numpy(), rows["propensity"].to_numpy(float)
    effects = []
    for a, arm in enumerate(campaign.arm_table.names[1:], start=1):
        for outcome in campaign.outcomes:
            y = rows[outcome].to_numpy(float)
            seen = np.isfinite(y)
            if not {0, a} <= set(given[seen].tolist()):
                continue
            found = sensitivity(
                y[seen],
                given[seen],
                propensity[seen],
                treated=a,
                replicates=REPLICATES,
                confidence=campaign.gate.confidence,
                seed=seed,
            )
            effects.append(ArmConfounding(arm, outcome, found))
    return Confounding(source, len(rows), effects)


def _times(odds_ratio: float) -> str:
    return f"{odds_ratio:.2f} times" if odds_ratio < 100 else f"{odds_ratio:,.0f} times"
