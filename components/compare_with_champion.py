"""Challenger against champion, on the same rows, inside the same budget."""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare_with_champion(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    drift: dsl.Input[dsl.Artifact],
    drift_report: dsl.Input[dsl.HTML],
    trials: dsl.Input[dsl.Dataset],
    evaluation_report: dsl.Output[dsl.HTML],
    verdict: dsl.Output[dsl.Artifact],
    seed: int = 0,
) -> bool:
    """Register the challenger, and say by a paired interval whether it should decide from now on.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        model: The challenger.
        evaluation: Its uplift metrics (JSON).
        validation: The checks' result (JSON).
        drift: The drift verdict (JSON).
        drift_report: Evidently's report.
        trials: The search's table.
        evaluation_report: The run's report (HTML): policies, curves, gate, drift.
        verdict: Policies, gate, the version in the registry, and what else the summary shows (JSON).
        seed: Of the cross-fitted outcome model.

    Returns:
        Whether to promote the challenger.
    """
    import json
    from pathlib import Path

    from campaigns.frame_file import FrameFile
    from campaigns.spec import Campaign
    from components.step import running
    from serving.contest import Evidence, contest
    from serving.reporting import write_report

    with running("compare_with_champion") as step:
        spec = Campaign.model_validate_json(campaign)
        frame = FrameFile(training_frame.path, spec)
        evidence = Evidence.read(
            evaluation=Path(evaluation.path),
            validation=Path(validation.path),
            drift=Path(drift.path),
        )
        result = contest(Path(model.path), frame, spec, evidence, step.settings, seed=seed)
        write_report(result, Path(evaluation_report.path), run=step.settings.run or "")
        files = {
            "report.html": Path(evaluation_report.path),
            "drift.html": Path(drift_report.path),
            "trials.parquet": Path(trials.path),
        }
        version = result.register(Path(model.path), files)
        Path(verdict.path).write_text(json.dumps(result.to_dict(version)))
        step.say(result.reason)
        return result.promote
