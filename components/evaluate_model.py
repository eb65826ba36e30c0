"""How well does the model rank units on rows that it never saw?"""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_model(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    uplift_metrics: dsl.Output[dsl.Metrics],
    evaluation: dsl.Output[dsl.Artifact],
    seed: int = 0,
) -> None:
    """Qini, AUUC and LIFT@h with intervals, for every arm and outcome, on held-out explored rows.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        model: The trained model.
        uplift_metrics: The estimates, as the KFP UI shows them.
        evaluation: Metrics, curves, calibration and hidden confounding (JSON), for the report.
        seed: Of the bootstrap.
    """
    from pathlib import Path

    from campaigns.frame_file import FrameFile
    from campaigns.spec import Campaign
    from components.step import running
    from models.split import TEST, folds
    from models.uplift_evaluation import evaluate_uplift
    from models.uplift_model import UpliftModel

    with running("evaluate_model") as step:
        spec = Campaign.model_validate_json(campaign)
        file = FrameFile(training_frame.path, spec)
        rows = file.where(lambda part: folds(part["unit_id"], spec.name) == TEST, ["unit_id"])
        result = evaluate_uplift(UpliftModel.load(Path(model.path)), rows, spec, seed=seed)
        Path(evaluation.path).write_text(result.to_json())
        for name, value in result.estimates.items():
            uplift_metrics.log_metric(name, value)
        step.say(result.summary)
