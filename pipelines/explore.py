"""Exploration by itself: draw the next trial, train nothing."""

from kfp import dsl

from components.retrieve_features import retrieve_features
from components.sample_exploration import sample_exploration


@dsl.pipeline(
    name="updraft-explore",
    display_name="Updraft: explore",
    description="Draw the next randomized trial inside the exploration budget.",
)
def explore(campaign: str, trial_share: float = 0.5, stratify_by: str = "") -> None:
    """Draw units and arms at random inside the exploration budget, and report the power.

    Args:
        campaign: The campaign file's text (YAML or JSON).
        trial_share: Share of what is left of the period's exploration budget for the trial.
        stratify_by: A categorical feature to balance the arms in; empty for none.
    """
    retrieved = retrieve_features(campaign=campaign).set_display_name("Retrieve features")
    retrieved.set_caching_options(False)
    task = sample_exploration(
        campaign=retrieved.outputs["campaign"],
        training_frame=retrieved.outputs["training_frame"],
        share=trial_share,
        stratify_by=stratify_by,
    )
    task.set_display_name("Sample exploration")
    task.set_caching_options(False)
