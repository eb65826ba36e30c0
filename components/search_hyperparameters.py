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
    from components.step import running

    with running("search_hyperparameters") as step:
        spec = Campaign.model_validate_json(campaign)
        chosen = {"config": spec.model.config, "training": spec.model.training}
        table = pd.DataFrame({"trial": []})
        if spec.model.search:
            from models.ray_session import attach
            from models.search import search

            attach(step.settings)
            result = search(
                training_frame.path,
                spec,
                seed=seed,
                storage=step.settings.folder("ray", "search"),
                say=step.say,
            )
            chosen = {"config": result.config, "training": result.training}
            table = result.table
        else:
            step.say("the campaign fixes the configuration: nothing to search")
        Path(hyperparameters.path).write_text(json.dumps(chosen))
        table.to_parquet(trials.path, index=False)
