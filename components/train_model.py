"""Train the net on every row that may be learned from."""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_model(
    campaign: str,
    training_frame: dsl.Input[dsl.Dataset],
    hyperparameters: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    workers: int = 1,
    gpu: bool = False,
    seed: int = 0,
) -> None:
    """Train the campaign's net (Ray Train), data-parallel over any number of workers.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).
        hyperparameters: The configuration to train (JSON).
        model: The trained model (a folder; no pickles in it).
        workers: Data-parallel workers.
        gpu: One GPU a worker.
        seed: Of weights and batches.
    """
    import json
    from pathlib import Path

    from campaigns.spec import Campaign
    from components.step import running
    from models.distributed import train
    from models.ray_session import attach

    with running("train_model") as step:
        spec = Campaign.model_validate_json(campaign)
        attach(step.settings)
        chosen = json.loads(Path(hyperparameters.path).read_text())
        trained = train(
            training_frame.path,
            spec,
            config=chosen["config"],
            training={**chosen["training"], "seed": seed},
            workers=workers,
            gpu=gpu,
            storage=step.settings.folder("ray", "train"),
            say=step.say,
        )
        trained.model.save(Path(model.path))
        model.metadata.update(net=trained.model.name, epochs=len(trained.history))
