"""Which configuration of the net ranks best on held-out rows?"""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def search_hyperparameters(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    hyperparameters: dsl.Output[dsl.Artifact],
    trials: dsl.Output[dsl.Dataset],
    seed: int = 0,
) -> None:
    """Search the net's configuration (Ray Tune: ASHA and Optuna), where the campaign asks for it.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        hyperparameters: The best configuration (JSON).
        trials: Every trial and what it reached (Parquet).
        seed: Of the search and of every trial.
    """
    import json
    from pathlib import Path

    import pandas as pd

    from campaigns.spec import Campaign
    from components.on_ray import on_ray
    from components.step import running

    with running("search_hyperparameters") as step:
        spec = Campaign.model_validate_json(campaign)
        if spec.model.search:
            on_ray(
                step,
                "search",
                {"campaign": campaign, "seed": seed},
                inputs={"training_frame": training_frame.path},
                outputs={"hyperparameters": hyperparameters.path, "trials": trials.path},
            )
        else:
            chosen = {"config": spec.model.config, "training": spec.model.training}
            Path(hyperparameters.path).write_text(json.dumps(chosen))
            pd.DataFrame({"trial": []}).to_parquet(trials.path, index=False)
            step.say("the campaign fixes the configuration: nothing to search")
