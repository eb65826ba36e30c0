"""Is the frame what the campaign promises, and was the trial's randomization kept?"""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_data(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> str:
    """Check the frame and test for sample-ratio mismatch; a failed test stops the pipeline.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        validation: What was tested and found (JSON).

    Returns:
        The campaign again, so that later steps wait for this one.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from campaigns.frame_file import FrameFile
    from campaigns.spec import Campaign
    from components.step import running
    from models.checks.covariates import check_covariates
    from models.checks.srm import require_sample_ratio

    with running("validate_data") as step:
        spec = Campaign.model_validate_json(campaign)
        file = FrameFile(training_frame.path, spec)
        frame = file.without_features()
        ratio = require_sample_ratio(frame, spec)
        covariates = check_covariates(frame, spec, features=file)
        found = asdict(ratio) | {"covariates": asdict(covariates)}
        Path(validation.path).write_text(json.dumps(found, default=list))
        step.say(f"sample ratio as designed (p = {ratio.p_value:.3f}); {covariates.summary}")
    return campaign
