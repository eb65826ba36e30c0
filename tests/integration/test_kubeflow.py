"""Submitting and scheduling against a server that behaves as the KFP v2beta1 interface."""

from __future__ import annotations

import functools
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml

import campaigns
from campaigns.errors import CampaignError, RemoteError
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from components.step import IMAGE
from pipelines import kfp_api, kubeflow

sys.path.insert(0, str(Path(__file__).parent))  # the server's modules lie beside this file
from kfp_rules import Refused, conforms
from kfp_server import KfpServer, kfp_server

CAMPAIGN = load_campaign(Path(campaigns.__file__).with_name("game_bonus.yaml")).model_dump_json()
ARGUMENTS = {"campaign": CAMPAIGN}
NIGHTLY = "0 0 3 * * *"


@pytest.fixture(autouse=True, scope="module")
def compiled_once() -> Iterator[None]:
    """Compiling takes a second; once for each pipeline and image is enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubeflow, "compile_pipeline", functools.cache(kubeflow.compile_pipeline))
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr(kfp_api, "BACKOFF_S", (0.01, 0.01, 0.01))
    with kfp_server() as running:
        yield running


def at(server: KfpServer, **more: Any) -> Settings:
    return Settings(kfp_endpoint=server.url, image="registry.example.com/updraft:7", **more)


def told(error: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# A run.


def test_a_run_starts_from_the_uploaded_pipeline(
    server: KfpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    run = kubeflow.submit("retrain", ARGUMENTS, at(server), run_name="first")
    (kept,) = server.runs.values()
    conforms({k: v for k, v in kept.items() if k != "state"}, "V2beta1Run")
    assert run["run_id"] == kept["run_id"]
    assert run["url"] == f"{server.url}/#/runs/details/{run['run_id']}"
    assert (run["run_name"], kept["display_name"]) == ("first", "first")
    assert kept["runtime_config"]["parameters"] == ARGUMENTS
    (pipeline,) = server.pipelines.values()
    assert pipeline["name"] == "updraft-retrain"
    assert pipeline["display_name"] == "Updraft: retrain"
    assert pipeline["description"]
    (version,) = server.versions.values()
    assert run["version"] == version["name"]
    text = json.dumps(version["pipeline_spec"])
    assert "registry.example.com/updraft:7" in text
    assert IMAGE not in text
    (experiment,) = server.experiments.values()
    assert experiment["display_name"] == "updraft"
    assert capfd.readouterr() == ("", "")  # nothing is printed by anybody


def test_by_default_a_run_is_named_after_its_campaign(server: KfpServer) -> None:
    run = kubeflow.submit("explore", ARGUMENTS, at(server))
    assert run["run_name"].startswith("game_bonus explore 20")


def test_the_same_pipeline_is_uploaded_once_and_a_changed_one_as_a_new_version(
    server: KfpServer,
) -> None:
    first = kubeflow.submit("explore", ARGUMENTS, at(server))
    again = kubeflow.submit("explore", ARGUMENTS, at(server))
    assert first["version"] == again["version"]
    assert len(server.calls("POST", "pipelines/upload_version")) == 1
    changed = at(server).model_copy(update={"image": "registry.example.com/updraft:8"})
    assert kubeflow.submit("explore", ARGUMENTS, changed)["version"] != first["version"]
    assert len(server.pipelines) == len(server.experiments) == 1
    assert len(server.versions) == 2
    assert len(server.runs) == 3


def test_the_uploaded_text_is_a_pipeline_that_kfp_reads(server: KfpServer, tmp_path: Path) -> None:
    kubeflow.submit("monitor", ARGUMENTS, at(server))
    (version,) = server.versions.values()
    loaded = kfp.components.load_component_from_text(yaml.safe_dump(version["pipeline_spec"]))
    assert "campaign" in loaded.component_spec.inputs


def test_several_at_a_time_make_one_pipeline(server: KfpServer) -> None:
    runs = [
        threading.Thread(target=kubeflow.submit, args=("explore", ARGUMENTS, at(server)))
        for _ in range(4)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(server.runs) == 4
    assert len(server.pipelines) == len(server.versions) == len(server.experiments) == 1


@pytest.mark.parametrize(
    ("pipeline", "arguments", "sentence"),
    [
        ("retrain", {}, "pipeline 'retrain' needs the parameter 'campaign'"),
        (
            "retrain",
            {**ARGUMENTS, "speed": 1},
            "'retrain' has no parameter 'speed'; it has 'campaign'",
        ),
        ("retrane", ARGUMENTS, "'retrane' does not exist; choose from 'retrain'"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(
    server: KfpServer, pipeline: str, arguments: dict[str, Any], sentence: str
) -> None:
    assert sentence in told(CampaignError, lambda: kubeflow.submit(pipeline, arguments, at(server)))
    assert not server.requests


def test_a_refused_argument_is_told_in_the_servers_words(server: KfpServer) -> None:
    wrong = {**ARGUMENTS, "workers": "two"}
    sentence = told(RemoteError, lambda: kubeflow.submit("retrain", wrong, at(server)))
    assert (
        f"{server.url}: can't create the run: refused (HTTP 400: input parameter workers"
        in sentence
    )


# A schedule.


def test_a_schedule_is_made_listed_replaced_and_ended(server: KfpServer) -> None:
    made = kubeflow.schedule("monitor", ARGUMENTS, NIGHTLY, at(server), name="nightly")
    (kept,) = server.recurring_runs.values()
    conforms(kept, "V2beta1RecurringRun")
    assert kept["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert kept["no_catchup"] is True
    assert (made["cron"], made["enabled"], made["max_concurrency"]) == (NIGHTLY, True, 1)
    assert made["url"].endswith(f"/#/recurringrun/details/{made['schedule_id']}")

    later = kubeflow.schedule("monitor", ARGUMENTS, "0 0 4 * * *", at(server), name="nightly")
    other = kubeflow.schedule(
        "retrain", ARGUMENTS, NIGHTLY, at(server), name="weekly", enabled=False, max_concurrency=2
    )
    listed = kubeflow.list_schedules(at(server))
    assert [s["schedule_id"] for s in listed] == [later["schedule_id"], other["schedule_id"]]
    assert [s["enabled"] for s in listed] == [True, False]
    assert listed[1]["max_concurrency"] == 2
    assert listed[0]["created_at"] is not None

    assert kubeflow.unschedule("nightly", at(server)) == [later["schedule_id"]]
    assert kubeflow.unschedule(other["schedule_id"], at(server)) == [other["schedule_id"]]
    assert kubeflow.list_schedules(at(server)) == []


def test_a_schedule_that_is_not_there_is_told_with_those_that_are(server: KfpServer) -> None:
    kubeflow.schedule("monitor", ARGUMENTS, NIGHTLY, at(server), name="nightly")
    sentence = told(CampaignError, lambda: kubeflow.unschedule("nightley", at(server)))
    assert sentence == "schedule 'nightley' does not exist; there is 'nightly'"


def test_schedules_of_one_experiment_leave_those_of_another_alone(server: KfpServer) -> None:
    for experiment in ("a", "b"):
        kubeflow.schedule(
            "monitor", ARGUMENTS, NIGHTLY, at(server), name="nightly", experiment=experiment
        )
    assert len(server.recurring_runs) == 2
    assert len(kubeflow.list_schedules(at(server), experiment="a")) == 1
    assert kubeflow.list_schedules(at(server), experiment="c") == []


def test_long_lists_are_read_to_the_end(server: KfpServer) -> None:
    server.page_limit = 2
    for name in "abcde":
        kubeflow.schedule("explore", ARGUMENTS, NIGHTLY, at(server), name=name)
    assert [s["name"] for s in kubeflow.list_schedules(at(server))] == list("abcde")


def test_five_fields_are_mended_before_anything_is_sent(server: KfpServer) -> None:
    sentence = told(
        CampaignError,
        lambda: kubeflow.schedule("monitor", ARGUMENTS, "0 3 * * *", at(server), name="n"),
    )
    assert "seconds first: write '0 0 3 * * *'" in sentence
    assert not server.requests


def test_the_old_schedule_stays_where_the_new_one_is_refused(server: KfpServer) -> None:
    kubeflow.schedule("monitor", ARGUMENTS, NIGHTLY, at(server), name="nightly")
    server.fail("POST", "/recurringruns", 500)
    with pytest.raises(RemoteError, match="schedule it again: one of the same name is replaced"):
        kubeflow.schedule("monitor", ARGUMENTS, "0 0 4 * * *", at(server), name="nightly")
    assert [s["cron"] for s in kubeflow.list_schedules(at(server))] == [NIGHTLY]


# Several users, tokens and prefixes.


def test_several_users_need_a_namespace_and_keep_to_it() -> None:
    with kfp_server(multi_user=True, token="secret", prefix="/pipeline") as server:
        sentence = told(
            CampaignError,
            lambda: kubeflow.submit("explore", ARGUMENTS, at(server, kfp_token="secret")),
        )
        assert "UPDRAFT_KFP_NAMESPACE" in sentence
        mine = at(server, kfp_token="secret", kfp_namespace="team-a")
        run = kubeflow.submit("explore", ARGUMENTS, mine)
        assert run["url"].startswith(f"{server.url}/#/runs")
        kubeflow.schedule("explore", ARGUMENTS, NIGHTLY, mine, name="nightly")
        assert len(kubeflow.list_schedules(mine)) == 1
        assert {p["namespace"] for p in server.pipelines.values()} == {"team-a"}
        theirs = at(server, kfp_token="secret", kfp_namespace="team-b")
        assert "HTTP 403" in told(
            RemoteError, lambda: kubeflow.submit("explore", ARGUMENTS, theirs)
        )


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_missing_or_wrong_token_is_told_and_never_shown(token: str | None) -> None:
    with kfp_server(token="secret") as server:
        sentence = told(RemoteError, lambda: kubeflow.list_schedules(at(server, kfp_token=token)))
        assert "HTTP 401" in sentence
        assert "UPDRAFT_KFP_TOKEN" in sentence
        assert "wrong" not in sentence


# Faults.


def test_what_is_safe_to_ask_twice_is_asked_again(server: KfpServer) -> None:
    server.fail("GET", "/healthz", 503, times=2)
    server.fail("GET", "/experiments", 502)
    server.fail("POST", "/experiments", 503)
    server.cut("POST", "/pipelines", done=True)  # made, but the answer is lost
    server.cut("POST", "/pipelines/upload_version", done=True)
    kubeflow.submit("explore", ARGUMENTS, at(server))
    assert len(server.experiments) == len(server.pipelines) == len(server.versions) == 1
    assert len(server.runs) == 1


@pytest.mark.parametrize("fault", ["fail", "cut"])
def test_a_run_is_never_started_twice(server: KfpServer, fault: str) -> None:
    if fault == "fail":
        server.fail("POST", "/runs", 503)
    else:
        server.cut("POST", "/runs", done=True)
    sentence = told(RemoteError, lambda: kubeflow.submit("explore", ARGUMENTS, at(server)))
    assert len(server.calls("POST", "runs")) == 1
    assert "look whether it started before you submit it again" in sentence


def test_a_server_that_keeps_failing_is_given_up_on(server: KfpServer) -> None:
    server.fail("GET", "/healthz", 503, times=9, page="<html>upstream connect error</html>")
    sentence = told(RemoteError, lambda: kubeflow.list_schedules(at(server)))
    assert sentence.startswith(
        f"{server.url}: can't ask for its health: it failed (HTTP 503: Service Unavailable)"
    )
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "page", "sentence"),
    [
        (200, "<html>Please log in</html>", "answers with a web page"),
        (302, "", "sent to https://login.example.com/ (HTTP 302), a login as it seems"),
        (404, "", "has no KFP v2 API; give the URL"),
        (404, "<html>\xff</html>", "has no KFP v2 API; give the URL"),
    ],
)
def test_what_is_no_kfp_api_is_told(
    server: KfpServer, status: int, page: str, sentence: str
) -> None:
    server.fail("GET", "/healthz", status, page=page)
    assert sentence in told(RemoteError, lambda: kubeflow.list_schedules(at(server)))


def test_a_duplicate_that_cannot_be_found_is_told(server: KfpServer) -> None:
    server.fail("POST", "/experiments", 409)
    sentence = told(RemoteError, lambda: kubeflow.submit("explore", ARGUMENTS, at(server)))
    assert "can't make the experiment 'updraft': there is one already (HTTP 409" in sentence


# The server itself: KFP's own client finds in it what we made, and it refuses what the real one would.


def test_the_official_client_sees_what_was_made(server: KfpServer) -> None:
    made = kubeflow.schedule("explore", ARGUMENTS, NIGHTLY, at(server), name="nightly")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = kfp.Client(host=server.url)
    experiment = client.get_experiment(experiment_name="updraft")
    (pipeline,) = server.pipelines.values()
    assert client.get_pipeline_id("Updraft: explore") == pipeline["pipeline_id"]
    (version,) = client.list_pipeline_versions(pipeline["pipeline_id"]).pipeline_versions
    assert version.pipeline_spec["pipelineInfo"]["name"] == "updraft-explore"
    (run,) = client.list_recurring_runs(experiment_id=experiment.experiment_id).recurring_runs
    assert run.recurring_run_id == made["schedule_id"]
    assert run.trigger.cron_schedule.cron == NIGHTLY


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"display_name": "x", "colour": "red"}, "V2beta1Experiment"),
        ({"no_catchup": "yes"}, "V2beta1RecurringRun"),
        ({"trigger": {"cron_schedule": {"cronn": NIGHTLY}}}, "V2beta1RecurringRun"),
        ({"mode": "ON"}, "V2beta1RecurringRun"),
        ({"runtime_config": {"parameters": []}}, "V2beta1Run"),
    ],
)
def test_bodies_that_do_not_fit_the_models_are_refused(body: dict[str, Any], kind: str) -> None:
    with pytest.raises(Refused, match="proto"):
        conforms(body, kind)
