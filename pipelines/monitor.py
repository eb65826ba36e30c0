"""Watch what comes in; retrain when it has drifted."""

from kfp import dsl

from components.detect_drift import detect_drift
from components.retrieve_features import retrieve_features
from pipelines.retrain import retrain


@dsl.pipeline(
    name="updraft-monitor",
    display_name="Updraft: monitor",
    description="Report drift of features and outcomes; retrain when the data has drifted.",
)
def monitor(
    campaign: str, retrain_on_drift: bool = True, workers: int = 1, gpu: bool = False, seed: int = 0
) -> None:
    """Compare recent data with earlier data, and retrain where it has drifted.

    Schedule it with at most one run at a time (``updraft schedule`` does).

    Args:
        campaign: The campaign file's text (YAML or JSON).
        retrain_on_drift: Retrain, rather than report only.
        workers: Data-parallel training workers of the retraining.
        gpu: Train on GPUs, one a worker.
        seed: Of search, weights, batches and the bootstrap.
    """
    retrieved = retrieve_features(campaign=campaign).set_display_name("Retrieve features")
    retrieved.set_caching_options(False)
    drifted = detect_drift(
        campaign=retrieved.outputs["campaign"], training_frame=retrieved.outputs["training_frame"]
    ).set_display_name("Detect drift")
    drifted.set_caching_options(False)
    with (
        dsl.If(retrain_on_drift == True, name="retraining is allowed"),  # noqa: E712
        dsl.If(drifted.outputs["Output"] == True, name="drifted"),  # noqa: E712
    ):
        retrain(campaign=campaign, workers=workers, gpu=gpu, seed=seed).set_display_name("Retrain")
