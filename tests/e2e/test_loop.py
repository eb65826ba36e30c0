"""The loop as a user runs it: real processes, real services, real HTTP, an empty home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from pipelines.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
UPDRAFT = [sys.executable, "-m", "pipelines.cli"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def small_campaign(folder: Path, **changes: Any) -> Path:
    """game_bonus with few rows and no search: every step runs, none for long."""
    spec = yaml.safe_load((ROOT / "campaigns" / "game_bonus.yaml").read_text())
    # About as many a day as the whole log has, so that the same budget binds.
    spec["source"] |= {"rows": 40_000, "days": 10}
    spec["model"] = {"name": "mtmt", "search": False, "training": {"epochs": 15}}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(spec | changes, sort_keys=False))
    return path


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "UPDRAFT_HOME": str(home)}


def updraft(
    home: Path, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UPDRAFT, *arguments],
        env=environment(home),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )


def policies(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {policy["name"]: policy for policy in verdict["policies"]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two cycles with 300 decisions between them; what the command printed as JSON."""
    home = tmp_path_factory.mktemp("home")
    campaign = small_campaign(home.parent)
    before = {process.pid for process in psutil.process_iter()}
    done = updraft(home, "demo", "--campaign", str(campaign), "--decisions", "300", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    result["home"] = home
    result["before"] = before
    return result


def test_the_run_here_is_the_compiled_pipeline(demo: dict[str, Any]) -> None:
    """Steps, parameters and artifacts of the first cycle, which promoted, are those of the YAML for Kubeflow."""
    assert_parity(min((demo["home"] / "runs").glob("*-retrain")))


def assert_parity(run: Path) -> None:
    from pipelines.catalog import PIPELINES
    from pipelines.compiling import compile_pipeline
    from pipelines.platform import step_of

    compiled = next(iter(yaml.safe_load_all(compile_pipeline(PIPELINES["retrain"]))))
    ran = json.loads((run / "done.json").read_text())["steps"]
    assert set(ran) == {step_of(label) for label in compiled["deploymentSpec"]["executors"]}
    arguments = json.loads((run / "arguments.json").read_text())
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert set(arguments) <= set(parameters)
    kinds = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool}
    for name, value in arguments.items():
        assert type(value) is kinds[parameters[name]["parameterType"]], name
    promised = {
        f"{task}/{artifact}"
        for task, told in compiled["root"]["dag"]["tasks"].items()
        for artifact in compiled["components"][told["componentRef"]["name"]]
        .get("outputDefinitions", {})
        .get("artifacts", {})
    }
    left = {f"{path.parent.name}/{path.name}" for path in (run / "artifacts").glob("*/*/*")}
    kept = {name for name in left if not name.endswith("/executor_output.json")}
    assert kept == promised - {"evaluate-model/uplift_metrics"}  # metrics are metadata, not a file


def test_the_champion_beats_nobody_and_keeps_the_budget(demo: dict[str, Any]) -> None:
    first, _ = demo["cycles"]
    scores = policies(first)
    assert first["promote"]
    assert scores["challenger"]["value"] > scores["nobody"]["value"]
    assert first["gain"]["low"] > 0
    assert scores["challenger"]["cost"] <= first["budget_per_unit"] * 1.0001
    # The world is simulated, so what each policy truly earns is known.
    assert scores["challenger"]["truth"] > scores["everybody-best-arm"]["truth"]
    assert scores["challenger"]["truth"] > scores["random"]["truth"]


def test_the_intervals_hold_the_truth_of_the_constant_policies(demo: dict[str, Any]) -> None:
    """At 95% one of many may miss; none may be far off."""
    for verdict in demo["cycles"]:
        for policy in verdict["policies"]:
            half = policy["high"] - policy["value"]
            assert abs(policy["truth"] - policy["value"]) < 2 * half


def test_every_decision_was_answered_and_every_outcome_came_back(demo: dict[str, Any]) -> None:
    played = demo["played"]
    assert played["decisions"] == 300
    assert played["outcomes"] == 2 * (300 + played["trial"])
    assert 0 < played["explored"] < 300


def test_the_second_cycle_learned_from_the_first_ones_decisions(demo: dict[str, Any]) -> None:
    first, second = demo["cycles"]
    assert second["champion"] == first["version"] == "1"
    assert second["version"] == "2"
    assert second["rows"] > first["rows"]
    assert {"champion", "challenger"} <= set(policies(second))


def test_reports_lie_where_they_are_said_to(demo: dict[str, Any]) -> None:
    folder = Path(demo["reports"])
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "challenger" in page
    assert (folder / "drift.html").stat().st_size > 100_000
    assert json.loads((folder / "done.json").read_text())["steps"]


def test_nothing_is_left_running(demo: dict[str, Any]) -> None:
    home = str(demo["home"])
    left = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        if process.pid in demo["before"]:
            continue
        if (process.info["environ"] or {}).get("UPDRAFT_HOME") == home:
            left.append(process.info["cmdline"])
    assert not left


def test_status_and_rollback_know_what_happened(demo: dict[str, Any]) -> None:
    told = updraft(demo["home"], "status", "game_bonus", "--json")
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    champion = next(v for v in status["versions"] if "champion" in v["aliases"])
    assert champion["version"] in ("1", "2")
    assert status["periods"][-1]["decisions"] >= 300
    if champion["version"] == "1":
        refused = updraft(demo["home"], "rollback", "game_bonus")
        assert refused.returncode == 2
        assert "previous" in refused.stderr


def test_serve_answers_until_ctrl_c(demo: dict[str, Any]) -> None:
    home = Path(demo["home"])
    port = free_port()
    process = subprocess.Popen(
        [*UPDRAFT, "serve", "game_bonus", "--port", str(port)],
        env=environment(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
    family = descendants(process)
    bearer = {"Authorization": f"Bearer {(home / 'secrets' / 'token').read_text().strip()}"}
    unit = {"unit_id": "newcomer", "features": {"games_7d": 3, "device": "never seen before"}}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        path = "/v1/campaigns/game_bonus/decisions"
        answer = client.post(path, json={"units": [unit]}, headers=bearer)
        assert answer.status_code == 200, answer.text
        decision = answer.json()["decisions"][0]
        assert 0 < decision["propensity"] <= 1
        assert client.post(path, json={"units": [unit]}).status_code == 401
        assert client.get("/v1/campaigns/game_bonus").json()["decisions"] > 300
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode == 130
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_ui_prints_its_links_and_ends(demo: dict[str, Any]) -> None:
    shown = updraft(demo["home"], "ui", "--seconds", "2")
    assert shown.returncode == 0, shown.stderr
    assert "MLflow: http://127.0.0.1:" in shown.stdout
    assert "Evidently: http://127.0.0.1:" in shown.stdout


def test_hillstrom_goes_round_the_loop(shared_data: Path, tmp_path: Path) -> None:
    """64,000 customers, three arms, three outcomes."""
    csv = shared_data / "hillstrom" / "hillstrom.csv"
    home = tmp_path / "home"
    assert updraft(home, "data", "get", "hillstrom", "--from", str(csv)).returncode == 0
    done = updraft(home, "run", str(ROOT / "campaigns" / "hillstrom.yaml"), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict["sample_ratio"]["ok"]
    scores = policies(verdict)
    assert set(scores) == {"nobody", "everybody-best-arm", "random", "challenger"}
    assert scores["challenger"]["cost"] <= verdict["budget_per_unit"] * 1.0001
    # An e-mail brings visits that are worth far more than it costs, so who gets one earns more.
    assert scores["challenger"]["value"] > scores["nobody"]["value"]


def started(home: Path, campaign: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run that has come as far as its first step."""
    process = subprocess.Popen(
        [*UPDRAFT, "run", str(campaign)],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list((home / "runs").glob("*/progress.jsonl")) if home.exists() else []
        if found:
            return process, found[0].parent
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    raise AssertionError("the run didn't start")


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_an_interrupted_run_ends_all_it_started_and_the_next_one_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    campaign = small_campaign(tmp_path)
    process, _ = started(home, campaign)
    family = descendants(process)
    assert family
    held = updraft(home, "run", str(campaign))
    assert held.returncode == 5
    assert f"process {process.pid}" in held.stderr
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive

    # And one that is killed outright: its children notice, its lock heals, its folder is not read.
    process, folder = started_again(home, campaign)
    family = descendants(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not (folder / "done.json").exists()
    done = updraft(home, "explore", str(campaign), "--json")
    assert done.returncode == 0, done.stderr[-3000:]


def started_again(home: Path, campaign: Path) -> tuple[subprocess.Popen[str], Path]:
    known = set((home / "runs").iterdir())
    process = subprocess.Popen([*UPDRAFT, "run", str(campaign)], env=environment(home), text=True)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        new = [p for p in (home / "runs").iterdir() if p not in known]
        if new and (new[0] / "progress.jsonl").exists():
            return process, new[0]
        time.sleep(0.2)
    raise AssertionError("the run didn't start")
