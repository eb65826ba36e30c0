"""The loop's training half: from the log to a deployed champion and the next trial."""

from kfp import dsl

from components.compare_with_champion import compare_with_champion
from components.deploy_model import deploy_model
from components.detect_drift import detect_drift
from components.evaluate_model import evaluate_model
from components.promote_model import promote_model
from components.retrieve_features import retrieve_features
from components.sample_exploration import sample_exploration
from components.search_hyperparameters import search_hyperparameters
from components.train_model import train_model
from components.validate_data import validate_data


def _fresh(task: dsl.PipelineTask) -> None:
    """Never from the cache: the step reads or changes what lies outside the pipeline."""
    task.set_caching_options(False)


@dsl.pipeline(
    name="updraft-retrain",
    display_name="Updraft: retrain",
    description="Retrieve, check, search, train, evaluate; promote and deploy what wins; explore again.",
)
def retrain(
    campaign: str,
    workers: int = 1,
    gpu: bool = False,
    seed: int = 0,
    deploy: bool = True,
    trial_share: float = 0.5,
) -> None:
    """Train a challenger on everything logged so far; it decides from now on if it clearly earns more.

    Args:
        campaign: The campaign file's text (YAML or JSON).
        workers: Data-parallel training workers.
        gpu: Train on GPUs, one a worker.
        seed: Of search, weights, batches and the bootstrap.
        deploy: Serve the new champion.
        trial_share: Share of what is left of the period's exploration budget for the next trial.
    """
    retrieved = retrieve_features(campaign=campaign).set_display_name("Retrieve features")
    _fresh(retrieved)
    frame = retrieved.outputs["training_frame"]
    spec = retrieved.outputs["campaign"]

    checked = validate_data(campaign=spec, training_frame=frame).set_display_name("Validate data")
    checked.set_retry(1)
    valid = checked.outputs["Output"]
    drifted = detect_drift(campaign=valid, training_frame=frame).set_display_name("Detect drift")
    drifted.set_retry(1)

    searched = search_hyperparameters(
        campaign=valid, training_frame=frame, seed=seed
    ).set_display_name("Search hyperparameters")
    searched.set_retry(1)
    searched.after(drifted)
    trained = train_model(
        campaign=valid,
        training_frame=frame,
        hyperparameters=searched.outputs["hyperparameters"],
        workers=workers,
        gpu=gpu,
        seed=seed,
    ).set_display_name("Train model")
    trained.set_retry(1)
    evaluated = evaluate_model(
        campaign=valid, training_frame=frame, model=trained.outputs["model"], seed=seed
    ).set_display_name("Evaluate model")
    evaluated.set_retry(1)

    compared = compare_with_champion(
        campaign=valid,
        training_frame=frame,
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        validation=checked.outputs["validation"],
        drift=drifted.outputs["drift"],
        drift_report=drifted.outputs["drift_report"],
        trials=searched.outputs["trials"],
        seed=seed,
    ).set_display_name("Compare with champion")
    _fresh(compared)

    with dsl.If(compared.outputs["Output"] == True, name="challenger wins"):  # noqa: E712
        promoted = promote_model(
            campaign=valid, verdict=compared.outputs["verdict"]
        ).set_display_name("Promote model")
        _fresh(promoted)
        with dsl.If(deploy == True, name="deploy it"):  # noqa: E712
            served = deploy_model(campaign=valid, version=promoted.output).set_display_name(
                "Deploy model"
            )
            _fresh(served)

    explored = sample_exploration(
        campaign=valid, training_frame=frame, share=trial_share
    ).set_display_name("Sample exploration")
    explored.after(compared)
    _fresh(explored)
