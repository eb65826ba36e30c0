"""Have the features moved since the champion learned?"""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def detect_drift(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    drift_report: dsl.Output[dsl.HTML],
    drift: dsl.Output[dsl.Artifact],
) -> bool:
    """Compare recent features with earlier ones (Evidently).

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        drift_report: Evidently's report (HTML).
        drift: Every feature's score, and the verdict (JSON).

    Returns:
        Whether the data drifted.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from campaigns.frame_file import FrameFile
    from campaigns.spec import Campaign
    from components.step import running
    from models.checks.drift import drift_report as compare
    from models.checks.periods import earlier_and_recent
    from models.registry import Registry

    with running("detect_drift") as step:
        spec = Campaign.model_validate_json(campaign)
        file = FrameFile(training_frame.path, spec)
        newest = next(iter(Registry(step.settings).describe(spec.name)), {})
        reference, current = earlier_and_recent(
            file.without_features(), newest.get("learned_until")
        )
        verdict = compare(
            reference,
            current,
            spec,
            Path(drift_report.path),
            workspace=step.settings.folder("evidently"),
            features=file,
        )
        Path(drift.path).write_text(json.dumps(asdict(verdict)))
        step.say(verdict.summary)
        return verdict.drifted
