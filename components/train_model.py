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
    from components.on_ray import on_ray
    from components.step import running

    with running("train_model") as step:
        done = on_ray(
            step,
            "train",
            {"campaign": campaign, "workers": workers, "gpu": gpu, "seed": seed},
            inputs={"training_frame": training_frame.path, "hyperparameters": hyperparameters.path},
            outputs={"model": model.path},
        )
        model.metadata.update(done)
