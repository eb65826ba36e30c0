"""Several Ray nodes that share no disk: training and search go on where one of them is lost.

What they need lies in an object store. The step that drives them is a process of its own, because a
process can attach to one Ray only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import fs

from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.worlds import world
from models.batches import InMemoryBatches
from models.catalog import build
from models.dataset import prepare
from models.plan import train_config
from models.selection import Validation
from models.split import SHARES, TRAIN
from models.training import EpochReport, fit, sized
from models.uplift_model import UpliftModel
from tests.integration.bonus import bonus_text
from tests.integration.ray_nodes import Nodes, network, nodes
from tests.integration.s3 import BUCKET, s3_server

pytestmark = pytest.mark.slow

CAMPAIGN = parse_campaign(bonus_text("{name: s_learner, trials: 6}", rows=12_000))
TRAINING = {"epochs": 5, "batch_size": 256, "seed": 3}
WORKERS = 3
ROWS = 12_000
FRAME = "frame.parquet"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three worker nodes; the folder with the frame is hidden from them."""
    local = tmp_path_factory.mktemp("driver")
    frame = decision_frame(world("game_bonus").log(ROWS, seed=1), CAMPAIGN, "log")
    frame.to_parquet(local / FRAME)
    with (
        pytest.MonkeyPatch.context() as patch,
        network() as net,
        s3_server(net.address if net else "127.0.0.1") as variables,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        if net is None:
            warnings.warn(
                "no network namespaces here: the nodes share address and disk", stacklevel=1
            )
        with nodes([1, 1, 1], net, hidden=local) as started:
            yield started


def test_training_on_three_nodes_goes_on_where_one_is_killed_within_an_epoch(
    cluster: Nodes,
) -> None:
    lost: list[int] = []

    def kill_one_in_the_third_epoch(said: str) -> None:
        if said.startswith("epoch 2 ") and not lost:
            assert all(cluster.runs(number, "RayTrainWorker") for number in cluster.alive)
            lost.append(cluster.alive[-1])
            cluster.kill(lost[0])
            cluster.add(1)  # as a cluster that replaces what it lost

    said = drive(cluster, "train", kill_one_in_the_third_epoch)
    assert lost
    told = [re.match(r"epoch (\d) of \d: validation loss ([\d.]+)", each) for each in said]
    losses = {int(each[1]): float(each[2]) for each in told if each}
    assert sum(sentence.startswith("epoch 1 ") for sentence in said) == 1  # not from scratch
    assert sorted(losses) == list(range(1, TRAINING["epochs"] + 1))
    np.testing.assert_allclose(
        [losses[epoch] for epoch in sorted(losses)], undisturbed(), atol=2e-3
    )
    model = UpliftModel.load(cluster.hidden / "model")
    assert model.predict(world("game_bonus").log(100, seed=5)).shape == (100, 3, 2)
    assert nothing_is_left()


def undisturbed() -> list[float]:
    """Validation losses of the same training by one process, which is what several compute."""
    table = decision_frame(world("game_bonus").log(ROWS, seed=1), CAMPAIGN, "log")
    settings = train_config("s_learner", TRAINING)
    prepared = prepare(table, CAMPAIGN, seed=settings.seed)
    settings = sized(settings, len(table) * SHARES[TRAIN], prepared.recipe.shape.features)
    net = build("s_learner", prepared.recipe.shape, {}, seed=settings.seed)
    net.start_from(prepared.recipe.scaler.start)
    reports: list[EpochReport] = []
    batches = InMemoryBatches(prepared.train, settings.batch_size, settings.seed)
    fit(net, batches, Validation.of(prepared), settings, on_epoch=reports.append)
    return [report.validation["loss"] for report in reports]


def test_a_search_goes_on_where_a_node_is_killed(cluster: Nodes) -> None:
    lost: list[int] = []

    def kill_one_with_a_trial(said: str) -> None:
        if said.startswith("trial ") and not lost:
            trial = "ImplicitFunc"  # as Ray calls its process
            lost.extend(number for number in cluster.alive if cluster.runs(number, trial))
            cluster.kill(lost[0])

    said = drive(cluster, "search", kill_one_with_a_trial)
    assert any("its process or its node was lost" in sentence for sentence in said)
    trials = pd.read_parquet(cluster.hidden / "trials")
    assert len(trials) == CAMPAIGN.model.trials
    # Tune repeats a trial that ran on the node; one that it was just handing over there counts as failed.
    failed = trials[trials["status"] == "failed"]
    assert len(failed) <= 1, said
    assert set(failed["error"]) <= {"its process or its node was lost"}
    assert trials["scores"].map(len).drop(failed.index).min() >= 1
    assert json.loads((cluster.hidden / "found").read_text())["training"]
    assert nothing_is_left()


def nothing_is_left() -> bool:
    """Whether the steps have removed what they put into the bucket."""
    store, path = fs.FileSystem.from_uri(BUCKET)
    found = store.get_file_info(fs.FileSelector(path, recursive=True))
    return not [each for each in found if each.is_file]


def drive(cluster: Nodes, task: str, seen: Callable[[str], None]) -> list[str]:
    """Run ``main`` in a process on the cluster; ``seen`` is told of every sentence at once."""
    command = [
        sys.executable, __file__, task, cluster.address, str(len(cluster.alive)), str(cluster.hidden)
    ]  # fmt: skip
    log, said = cluster.folder / f"{task}.log", []
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, env=cluster.environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if line.startswith('{"said"'):
                    said.append(json.loads(line)["said"])
                    seen(said[-1])
            assert process.wait() == 0, log.read_text()[-3000:]
        finally:
            process.kill()
    return said


def main(task: str, address: str, expected: str, folder: str) -> None:
    """What the driver does: a step of the pipeline, with its artifacts in its own folder."""
    import ray

    from campaigns.settings import Settings
    from components.on_ray import on_ray
    from components.step import Step

    class Telling(Step):
        def say(self, message: str, *, done: float | None = None) -> None:
            print(json.dumps({"said": message}), flush=True)

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    end = time.monotonic() + 240
    while sum(node["Alive"] for node in ray.nodes()) <= int(expected):
        assert time.monotonic() < end, ray.nodes()
        time.sleep(0.2)
    here = Path(folder)
    (here / "hyperparameters").write_text(json.dumps({"config": {}, "training": TRAINING}))
    settings = Settings(home=here / "home", exchange=f"{BUCKET}/exchange")
    given = {"campaign": CAMPAIGN.model_dump_json(), "seed": TRAINING["seed"]}
    outputs = {
        "train": {"model": str(here / "model")},
        "search": {"hyperparameters": str(here / "found"), "trials": str(here / "trials")},
    }
    inputs = {"training_frame": str(here / FRAME)}
    if task == "train":
        given |= {"workers": WORKERS, "gpu": False}
        inputs["hyperparameters"] = str(here / "hyperparameters")
    on_ray(Telling(task, settings), task, given, inputs=inputs, outputs=outputs[task])


if __name__ == "__main__":
    main(*sys.argv[1:])
