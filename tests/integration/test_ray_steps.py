"""A step that uses Ray, as a RayJob: the same function runs, and fails in the same words."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kfp import dsl

from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from campaigns.worlds import world
from components import rayjob_logs
from components.train_model import train_model
from models.uplift_model import UpliftModel
from pipelines.ray_runtime import ray_runtime
from tests.integration.bonus import bonus_text

sys.path.insert(0, str(Path(__file__).parent))  # the server's modules lie beside this file
from kube_server import KubeServer, kube_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGN = parse_campaign(bonus_text("{name: s_boost, search: false}"))
CHOSEN = {"config": {"trees": 20}, "training": {}}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> dsl.Dataset:
    path = tmp_path_factory.mktemp("frame") / "frame.parquet"
    decision_frame(world("game_bonus").log(12_000, seed=1), CAMPAIGN, "log").to_parquet(path)
    return dsl.Dataset(uri=str(path))


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with ray_runtime(Settings(home=tmp_path_factory.mktemp("home"), cpus=4)) as settings:
        yield settings


@pytest.fixture
def cluster(ray: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """The step's environment as compiled pipelines set it, and an operator that runs the entrypoint."""
    monkeypatch.setattr(rayjob_logs, "POLL_S", 0.02)
    for name, value in {
        "HOME": ray.root, "RAYJOB": ROOT / "infra" / "train" / "rayjob.yaml", "KFP_RUN": "run-1",
        "POD": "step-pod",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"UPDRAFT_{name}", str(value))
    with kube_server(tmp_path) as (server, config):
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(config))
        owner = {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "retrain-x7k2p",
            "uid": "1-2-3", "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        server.pod("step-pod", {}, "Running")
        server.objects["pods", "updraft", "step-pod"]["metadata"]["ownerReferences"] = [owner]

        def operate(name: str) -> None:
            (job,) = server.jobs()
            server.status(name, "Running", "RUNNING")
            pod = server.submitter(name)
            python, *command = shlex.split(job["spec"]["entrypoint"])
            assert python == "python"
            with subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("UPDRAFT_")}
                | {"UPDRAFT_RAY_ADDRESS": str(ray.ray_address), "UPDRAFT_HOME": str(ray.root)},
            ) as process:  # fmt: skip
                for second, line in enumerate(process.stdout or ()):
                    server.write(pod, line.rstrip("\n"), at=second)
            good = process.returncode == 0
            server.submitter(name, "Succeeded" if good else "Failed")
            if good:
                server.status(name, "Complete", "SUCCEEDED")
            else:
                server.status(name, "Failed", "FAILED", reason="AppFailed", message="exit code")

        server.operator = operate
        yield server


def artifact(path: Path, told: Any = None) -> dsl.Artifact:
    if told is not None:
        path.write_text(json.dumps(told))
    return dsl.Artifact(uri=str(path))


def test_training_as_a_rayjob_gives_the_step_its_model(
    cluster: KubeServer,
    ray: Settings,
    frame: dsl.Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = dsl.Model(uri=str(tmp_path / "model"))
    train_model.python_func(
        campaign=CAMPAIGN.model_dump_json(),
        training_frame=frame,
        hyperparameters=artifact(tmp_path / "chosen.json", CHOSEN),
        model=model,
        seed=3,
    )
    (made,) = (body for method, _, _, body in cluster.requests if method == "POST")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "retrain-x7k2p", "uid": "1-2-3"}
    ]  # fmt: skip
    assert model.metadata == {"net": "s_boost", "epochs": 1}
    out = capfd.readouterr().out
    assert out.count('"event": "finished"') == 2  # the job's, in its log, and the step's
    assert cluster.jobs() == []
    assert not list((ray.root / "exchange").rglob("*.*"))

    rows = pd.read_parquet(frame.path).head(500)
    outcomes = UpliftModel.load(tmp_path / "model").predict(rows)
    assert outcomes.shape == (500, 3, 2)
    assert outcomes.std(axis=0).min() > 0


def test_a_mistake_is_told_as_if_it_had_been_found_here(
    cluster: KubeServer, frame: dsl.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = {"config": {"treees": 8}, "training": {}}
    with pytest.raises(SystemExit) as ended:
        train_model.python_func(
            campaign=CAMPAIGN.model_dump_json(),
            training_frame=frame,
            hyperparameters=artifact(tmp_path / "chosen.json", wrong),
            model=dsl.Model(uri=str(tmp_path / "model")),
        )
    assert ended.value.code == 2
    lines = capfd.readouterr().out.splitlines()
    last = json.loads([line for line in lines if line.startswith("{")][-1])
    assert last["event"] == "failed"
    assert "treees" in last["message"]
    assert cluster.jobs() == []


def test_a_run_without_a_name_is_refused(
    cluster: KubeServer, frame: dsl.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPDRAFT_KFP_RUN")
    monkeypatch.delenv("UPDRAFT_POD")
    with pytest.raises(SystemExit) as ended:
        train_model.python_func(
            campaign=CAMPAIGN.model_dump_json(),
            training_frame=frame,
            hyperparameters=artifact(tmp_path / "chosen.json", CHOSEN),
            model=dsl.Model(uri=str(tmp_path / "model")),
        )
    assert ended.value.code == 5
