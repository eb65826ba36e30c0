"""Trees beside a net: boosted S-learners that have two thirds of its answer.

A net and trees err in different places, so a mean of both errs less than either. The trees are ``s_boost``
with ``NetConfig.trees`` bags, fit on the rows that the net trained on and those that it stopped by.
"""

from __future__ import annotations

from dataclasses import replace

from campaigns.errors import DataError
from models.fitting import as_it_can, fit_as_task
from models.learners.base import Learner
from models.plan import Plan
from models.progress import Say, quiet
from models.uplift_model import TREES, trees_config


def fit_trees(plan: Plan, say: Say = quiet, max_failures: int = 0) -> Learner | None:
    """The trees that belong to a plan's net, fit as a task of Ray.

    None where the net has none, or where there are no rows that trees could learn from: the net then
    answers alone, which is said.

    Args:
        plan: The net's.
        say: Told of every model that is fit.
        max_failures: How often a task whose process died begins again.

    Raises:
        CampaignError: Trees can't serve the campaign.
        EnvironmentProblem: As :func:`models.fitting.fit_as_task`.
    """
    if (settings := trees_config(plan.config)) is None:
        return None
    own = as_it_can(replace(plan, name=TREES, config=settings), {}, say=say)
    own.learner()
    try:
        return fit_as_task(own, say, max_failures).learner
    except DataError as error:
        say(f"the net answers without trees: {error}")
        return None
