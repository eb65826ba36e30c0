"""Draw the next randomized trial inside the exploration budget."""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sample_exploration(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    decision_record: dsl.Output[dsl.Dataset],
    power_report: dsl.Output[dsl.Artifact],
    share: float = 0.5,
    stratify_by: str = "",
) -> int:
    """Draw units and arms at random, write the decisions to the event store, and report the power.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet): what outcomes looked like so far.
        decision_record: The trial's decisions (Parquet): unit, arm, propensity.
        power_report: The effect that the trial can detect, per outcome and arm (JSON).
        share: How much of what is left of the period's exploration budget it may spend.
        stratify_by: A categorical feature to balance the arms in; empty for none.

    Returns:
        How many units were drawn.
    """
    import json
    from pathlib import Path

    from campaigns.frame_file import FrameFile
    from campaigns.spec import Campaign
    from components.step import running
    from feature_repo.retrieval import latest_units
    from serving.trials import run_trial

    with running("sample_exploration") as step:
        spec = Campaign.model_validate_json(campaign)
        trial = run_trial(
            spec,
            latest_units(spec, step.settings),
            FrameFile(training_frame.path, spec).without_features(),
            step.settings,
            share=share,
            stratify_by=stratify_by,
        )
        trial.decisions.to_parquet(decision_record.path, index=False)
        Path(power_report.path).write_text(json.dumps(trial.power))
        step.say(trial.summary)
        return len(trial.decisions)
