"""A RayJob from creation to end, against a server that behaves as the Kubernetes API and plays the operator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from campaigns.errors import CampaignError, EnvironmentProblem, RemoteError
from components import kube_api, rayjob_logs, rayjob_watch
from components.rayjob import job_name, rayjob, read_rayjob
from components.rayjob_run import JobFailed, run_rayjob
from pipelines.doctor_cluster import RIGHTS

sys.path.insert(0, str(Path(__file__).parent))  # the server's modules lie beside this file
from kube_rules import Refused, check_rayjob
from kube_server import KubeServer, kube_server

from tests.unit.infra.manifests import HAS_BUILDER, WITHOUT, build

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra" / "train" / "rayjob.yaml"
JOB = rayjob(
    read_rayjob(str(TEMPLATE)), run="run-1", step="train_model", entrypoint="python -m job"
)
NAME = JOB["metadata"]["name"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    monkeypatch.setattr(kube_api, "FIRST_S", 0.01)
    monkeypatch.setattr(kube_api, "PATIENCE_S", 5.0)
    monkeypatch.setattr(rayjob_watch, "WATCH_S", 1)
    monkeypatch.setattr(rayjob_logs, "POLL_S", 0.02)
    with kube_server(tmp_path) as (running, config):
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(config))
        yield running


class Told:
    """What a run said and logged."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.log: list[str] = []

    def run(self, job: dict[str, Any] = JOB) -> Told:
        with kube_api.kube_api() as api:
            run_rayjob(api, job, say=self.said.append, log=self.log.append)
        return self


def succeeds(server: KubeServer, *lines: str) -> Callable[[str], None]:
    """An operator that starts a Ray, has the job write its lines and ends it well."""

    def operate(name: str) -> None:
        server.await_(lambda: any(q.get("watch") for _, _, q, _ in server.requests))
        server.status(name, "Initializing")
        server.status(name, "Running", "PENDING")
        pod = server.submitter(name)
        server.status(name, "Running", "RUNNING")
        for second, line in enumerate(lines):
            server.write(pod, line, at=second / 3)
            time.sleep(0.01)
        server.submitter(name, "Succeeded")
        server.status(name, "Complete", "SUCCEEDED")

    return operate


def fails(server: KubeServer, reason: str, message: str, job: str = "") -> Callable[[str], None]:
    def operate(name: str) -> None:
        server.status(name, "Initializing")
        server.status(name, "Failed", job, reason=reason, message=message)

    return operate


def told(kind: type[BaseException]) -> str:
    with pytest.raises(kind) as caught:
        Told().run()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# From creation to end.


def test_a_job_is_made_followed_logged_and_removed(server: KubeServer) -> None:
    server.operator = succeeds(server, *"abc")
    seen = Told().run()
    assert seen.log == ["a", "b", "c"]
    assert [line.removeprefix(f"RayJob updraft/{NAME} ") for line in seen.said][-2:] == [
        "starts its Ray",
        "runs",
    ]
    assert server.jobs() == []


def test_the_job_is_the_template_with_another_entrypoint(server: KubeServer) -> None:
    server.operator = succeeds(server)
    Told().run()
    (made,) = (body for method, _, _, body in server.requests if method == "POST")
    template = yaml.safe_load(TEMPLATE.read_text())
    assert made["spec"]["entrypoint"] == "python -m job"
    for key in ("activeDeadlineSeconds", "deletionStrategy", "submitterPodTemplate"):
        assert made["spec"][key] == template["spec"][key]
    assert made["metadata"]["labels"]["updraft/run"] == "run-1"
    assert [g["groupName"] for g in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == ["cpu"]


def test_a_log_is_told_once_and_in_order_across_dropped_connections(server: KubeServer) -> None:
    """Three lines have the same time; connections drop within and after them."""

    def operate(name: str) -> None:
        pod = server.submitter(name, "Pending")
        server.status(name, "Running", "RUNNING")
        server.logs[pod].cut_after = [2, 0, 3]
        server.write(pod, "1", "2", "3", at=0.5)
        server.write(pod, "4", at=0.75)
        server.submitter(name)
        for number in range(5, 30):
            server.write(pod, str(number), at=0.75 + number / 4)
            time.sleep(0.01)
        server.submitter(name, "Succeeded")
        server.status(name, "Complete", "SUCCEEDED")

    server.operator = operate
    assert Told().run().log == [str(number) for number in range(1, 30)]
    reads = [q for _, path, q, _ in server.requests if path.endswith("/log")]
    assert [q.get("sinceTime") for q in reads][:2] == [None, "2026-01-02T03:04:05Z"]


def test_a_second_submitter_is_read_after_the_first(server: KubeServer) -> None:
    def operate(name: str) -> None:
        server.write(server.submitter(name), "lost its head")
        server.status(name, "Running", "RUNNING")
        server.submitter(name, "Failed")
        server.write(server.submitter(name, number=1), "again")
        server.submitter(name, "Succeeded", number=1)
        server.status(name, "Complete", "SUCCEEDED")

    server.operator = operate
    assert Told().run().log == ["lost its head", "again"]


def test_a_job_without_a_readable_log_ends_well_all_the_same(server: KubeServer) -> None:
    server.operator = succeeds(server, "a")
    server.forbidden = {("get", "pods/log")}
    (line,) = Told().run().log
    assert "can't read the job's log: not allowed" in line


# Hiccups.


@pytest.mark.parametrize("gone_as", ["event", "status"])
def test_a_watch_that_is_too_old_lists_again(server: KubeServer, gone_as: str) -> None:
    def operate(name: str) -> None:
        server.status(name, "Running", "RUNNING")
        listed = lambda: sum(q.get("watch") is None for m, p, q, _ in server.requests if m == "GET" and p.endswith("rayjobs"))  # fmt: skip  # noqa: E731
        server.await_(lambda: listed() == 1)
        server.cut("GET", "watch=True", times=3)
        server.compact()
        server.await_(lambda: listed() > 1)
        server.status(name, "Complete", "SUCCEEDED")

    server.gone_as = gone_as
    server.operator = operate
    Told().run()
    assert server.jobs() == []


def test_watches_end_and_go_on_where_they_were(server: KubeServer) -> None:
    def operate(name: str) -> None:
        server.status(name, "Running", "RUNNING")
        time.sleep(2.5)  # two watches end meanwhile
        server.status(name, "Complete", "SUCCEEDED")

    server.operator = operate
    Told().run()
    versions = [int(q["resourceVersion"]) for _, _, q, _ in server.requests if q.get("watch")]
    lists = [q for m, p, q, _ in server.requests if p.endswith("rayjobs") and m == "GET"]
    assert len(versions) >= 3
    assert versions == sorted(versions)
    assert len(lists) - len(versions) == 1  # listed once


def test_a_connection_that_went_dead_is_noticed(
    server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte comes any more, and nobody closes: as where a firewall forgot the connection."""
    monkeypatch.setattr(rayjob_watch, "SILENCE_S", 0)

    def operate(name: str) -> None:
        server.status(name, "Running", "RUNNING")
        server.await_(lambda: any(q.get("watch") for _, _, q, _ in server.requests))
        time.sleep(0.2)
        server.mute = True
        server.status(name, "Complete", "SUCCEEDED")
        watches = lambda: sum("watch" in q for _, _, q, _ in server.requests)  # noqa: E731
        server.await_(lambda: watches() > 1)
        server.mute = False

    server.operator = operate
    Told().run()


def test_hiccups_are_waited_out(server: KubeServer) -> None:
    server.fail("POST", "rayjobs", 503)
    server.fail("POST", "rayjobs", 500)
    server.cut("POST", "rayjobs", done=True)  # made, but the answer is lost
    server.fail("GET", "rayjobs?", 500, times=2)
    server.fail("GET", "watch=True", 429, after=1)
    server.cut("GET", "watch=True", times=2)
    server.cut("DELETE", "rayjobs")
    server.fail("DELETE", "rayjobs", 504)
    server.fail("DELETE", "rayjobs", 409)
    server.operator = succeeds(server, "a")
    begin = time.monotonic()
    assert Told().run().log == ["a"]
    assert time.monotonic() - begin >= 1.0  # as the server asked
    assert server.jobs() == []
    assert server._faults == []


def test_an_api_that_stays_away_is_given_up_on_and_the_job_goes_on(
    server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_api, "PATIENCE_S", 0.2)

    def operate(name: str) -> None:
        server.status(name, "Running", "RUNNING")
        server.await_(lambda: any(q.get("watch") for _, _, q, _ in server.requests))
        server.fail("GET", "rayjobs", 503, times=1000)
        server.closing = True  # ends the watch

    server.operator = operate
    assert f"can't watch RayJob updraft/{NAME}: HTTP 503" in told(RemoteError)
    assert len(server.jobs()) == 1


def test_inside_a_cluster_the_pods_own_account_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"token": "s3cret", "ca.crt": "-----BEGIN", "namespace": "team-a\n"}.items():
        (tmp_path / name).write_text(text)
    loader = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{loader}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{loader}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(kube_api, "NAMESPACE_FILE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with kube_api.kube_api() as api:
        assert (api.host, api.namespace) == ("https://10.0.0.1:443", "team-a")
        told = api.client.configuration.get_api_key_with_prefix("authorization")
        assert told.lower() == "bearer s3cret"


# Ends that aren't good.


def test_a_failed_job_is_told_with_its_message_and_removed(server: KubeServer) -> None:
    message = "Job entrypoint command failed with exit code 1,\nlast available logs: ValueError: 3"
    server.operator = fails(server, "AppFailed", message, "FAILED")
    sentence = told(JobFailed)
    assert sentence.startswith(f"RayJob updraft/{NAME}: the job failed: Job entrypoint command")
    assert sentence.endswith("ValueError: 3")
    assert server.jobs() == []


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("DeadlineExceeded", "didn't end within its deadline of 21600 s (activeDeadlineSeconds)"),
        ("SubmissionFailed", "failed (SubmissionFailed): no answer"),
    ],
)
def test_a_deadline_and_a_failed_submission_are_told(
    server: KubeServer, reason: str, sentence: str
) -> None:
    server.operator = fails(server, reason, "no answer")
    assert sentence in told(EnvironmentProblem)


def test_a_job_that_was_stopped_or_removed_is_told(server: KubeServer) -> None:
    server.operator = lambda name: server.status(name, "Complete", "STOPPED")
    assert "somebody stopped the job" in told(EnvironmentProblem)
    server.operator = lambda name: server.put("rayjobs", server.jobs()[0], "DELETED")
    assert "somebody removed it while it ran" in told(RemoteError)


def test_what_keeps_the_ray_from_starting_is_told(server: KubeServer) -> None:
    def operate(name: str) -> None:
        scheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no GPU"}
        server.pod("head", {"ray.io/cluster": f"{name}-abcde"}, "Pending", conditions=[scheduled])
        server.status(name, "Initializing")
        time.sleep(0.1)
        server.status(name, "Complete", "SUCCEEDED")

    server.operator = operate
    assert any(
        "starts its Ray; waits for a node (0/3 nodes: no GPU)" in s for s in Told().run().said
    )


@pytest.mark.parametrize(
    ("prepare", "kind", "sentence"),
    [
        (lambda s: setattr(s, "quota", "gpus"), EnvironmentProblem, "quota is used up (exceeded"),
        (lambda s: s.forbidden.add(("create", "rayjobs")), RemoteError, "infra/base/access.yaml"),
        (lambda s: s.forbidden.add(("watch", "rayjobs")), RemoteError, "can't watch RayJob"),
        (lambda s: s.installed.discard("rayjobs"), RemoteError, "is KubeRay installed"),
    ],
)
def test_refusals_are_one_sentence(
    server: KubeServer, prepare: Callable[[KubeServer], Any], kind: type[Exception], sentence: str
) -> None:
    prepare(server)
    assert sentence in told(kind)


# A step that starts again.


def test_a_job_that_runs_already_is_adopted(server: KubeServer) -> None:
    with kube_api.kube_api() as api:
        api.objects.create_namespaced_custom_object("ray.io", "v1", "updraft", "rayjobs", JOB)
    threading.Timer(0.1, succeeds(server, "a"), (NAME,)).start()
    seen = Told().run()
    assert seen.said[0] == f"RayJob updraft/{NAME} is there already: goes on with it"
    assert seen.log == ["a"]
    assert server.jobs() == []


def test_a_job_that_succeeded_meanwhile_is_taken_as_it_is(server: KubeServer) -> None:
    with kube_api.kube_api() as api:
        api.objects.create_namespaced_custom_object("ray.io", "v1", "updraft", "rayjobs", JOB)
    server.status(NAME, "Complete", "SUCCEEDED")
    server.operator = lambda name: pytest.fail("made again")
    Told().run()
    assert len([1 for method, *_ in server.requests if method == "POST"]) == 2  # one was refused


@pytest.mark.parametrize("lingering", [0.0, 0.2])
def test_a_job_that_failed_before_is_made_anew(server: KubeServer, lingering: float) -> None:
    server.lingering = lingering
    with kube_api.kube_api() as api:
        api.objects.create_namespaced_custom_object("ray.io", "v1", "updraft", "rayjobs", JOB)
    first = server.jobs()[0]["metadata"]["uid"]
    server.status(NAME, "Failed", "FAILED", reason="AppFailed")
    server.operator = succeeds(server, "a")
    assert Told().run().log == ["a"]
    deleted = [item["metadata"]["uid"] for _, _, kind, item in server.history if kind == "DELETED"]
    assert deleted[0] == first


def test_what_is_asked_for_is_what_the_role_grants(server: KubeServer) -> None:
    """A job made anew, with its log, and the pod of a step that owns it: every right, and no other."""
    with kube_api.kube_api() as api:
        api.objects.create_namespaced_custom_object("ray.io", "v1", "updraft", "rayjobs", JOB)
    server.status(NAME, "Failed", "FAILED", reason="AppFailed")
    server.operator = succeeds(server, "a")
    Told().run()
    used = {(group, resource, verb) for verb, group, resource in server.used}
    assert used == {right for right in RIGHTS if right[1] != "rayservices"}


def test_a_job_of_another_run_is_left_alone(server: KubeServer) -> None:
    theirs = {**JOB, "metadata": {**JOB["metadata"], "labels": {"updraft/run": "run-2"}}}
    with kube_api.kube_api() as api:
        api.objects.create_namespaced_custom_object("ray.io", "v1", "updraft", "rayjobs", theirs)
    assert "is there already, of run 'run-2'" in told(RemoteError)
    assert len(server.jobs()) == 1


def test_names_are_the_same_for_the_same_step_of_a_run_alone() -> None:
    names = {job_name(run, step) for run in ("a", "b") for step in ("train_model", "search")}
    assert len(names) == 4
    assert job_name("a", "train_model") in names
    assert all(len(name) <= 47 for name in (*names, job_name("r" * 99, "s" * 99)))


# Real processes.

STEP = """
import sys
from components import kube_api, rayjob_logs
from components.rayjob import rayjob, read_rayjob
from components.rayjob_run import run_rayjob
job = rayjob(read_rayjob(sys.argv[1]), run="run-1", step="train_model", entrypoint="python -m job")
rayjob_logs.POLL_S = 0.02
with kube_api.kube_api() as api:
    run_rayjob(api, job, say=lambda text: print(text, flush=True), log=print)
print("done")
"""


def step(config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STEP, str(TEMPLATE)],
        env={**os.environ, "KUBECONFIG": str(config)}, cwd=ROOT, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_sigterm_removes_the_job(server: KubeServer, tmp_path: Path) -> None:
    server.operator = lambda name: server.status(name, "Running", "RUNNING")
    process = step(tmp_path / "kubeconfig")
    server.await_(lambda: any(q.get("watch") for _, _, q, _ in server.requests), 30)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out.endswith(f"RayJob updraft/{NAME} is cancelled\n")
    assert server.jobs() == []


def test_a_step_that_was_killed_finds_its_job_again(server: KubeServer, tmp_path: Path) -> None:
    server.operator = lambda name: server.status(name, "Running", "RUNNING")
    first = step(tmp_path / "kubeconfig")
    server.await_(lambda: any(q.get("watch") for _, _, q, _ in server.requests), 30)
    first.kill()
    first.communicate()
    (job,) = server.jobs()
    second = step(tmp_path / "kubeconfig")
    watches = lambda: sum("watch" in q for _, _, q, _ in server.requests)  # noqa: E731
    before = watches()
    server.await_(lambda: watches() > before, 30)
    assert server.jobs()[0]["metadata"]["uid"] == job["metadata"]["uid"]
    server.submitter(NAME, "Succeeded")
    server.write(f"{NAME}-0", "the end")
    server.status(NAME, "Complete", "SUCCEEDED")
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "goes on with it" in out
    assert out.endswith("the end\ndone\n")
    assert server.jobs() == []


# The manifest.


def test_gpu_workers_are_as_many_as_are_asked_for() -> None:
    made = rayjob(
        read_rayjob(str(TEMPLATE)), run="r", step="s", entrypoint="e", workers=5, gpu=True
    )
    groups = {g["groupName"]: g for g in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups["gpu"]["replicas"] == groups["gpu"]["minReplicas"] == 5
    assert groups["gpu"]["maxReplicas"] == 5
    check_rayjob(made)


@pytest.mark.skipif(not HAS_BUILDER, reason=WITHOUT)
@pytest.mark.parametrize(
    ("overlay", "gpu"), [("dev", False), ("production", False), ("production", True)]
)
def test_the_overlays_jobs_are_templates_too(overlay: str, gpu: bool) -> None:
    (job,) = build(f"overlays/{overlay}/train")
    made = rayjob(job, run="r", step="train_model", entrypoint="e", workers=2, gpu=gpu)
    check_rayjob(made)
    queue = "kueue.x-k8s.io/queue-name"
    assert made["metadata"]["labels"].get(queue) == job["metadata"]["labels"].get(queue)
    assert made["spec"].get("suspend", False) == (overlay == "production")  # Kueue starts it
    assert job == build(f"overlays/{overlay}/train")[0]  # the template is left as it was


def test_cpu_workers_fit_on_their_nodes() -> None:
    """Nodes have 4 logical CPUs each; one is for what reads."""
    made = rayjob(read_rayjob(str(TEMPLATE)), run="r", step="s", entrypoint="e", workers=8)
    (group,) = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["groupName"], group["replicas"]) == ("cpu", 3)
    check_rayjob(made)


def test_a_template_without_gpus_is_told() -> None:
    template = read_rayjob(str(TEMPLATE))
    template["spec"]["rayClusterSpec"]["workerGroupSpecs"].pop()
    with pytest.raises(CampaignError, match=r"no worker group of the RayJob has nvidia.com/gpu"):
        rayjob(template, run="r", step="s", entrypoint="e", gpu=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Job\napiVersion: batch/v1", "holds 0 RayJobs"),
        ("kind: RayJob\napiVersion: ray.io/v1alpha1", "write ray.io/v1"),
        ("kind: RayJob\napiVersion: ray.io/v1\nspec: {}", "has no container"),
        ("{kind: RayJob", "is no YAML"),
        ("nowhere.yaml", "'nowhere.yaml' can't be read"),
    ],
)
def test_what_is_no_template_is_told(text: str, sentence: str) -> None:
    with pytest.raises(CampaignError, match=sentence):
        read_rayjob(text)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"activeDeadlineSecond": 5}},
        {"spec": {"shutdownAfterJobFinishes": True}},
        {"spec": {"activeDeadlineSeconds": "5"}},
        {"metadata": {"name": "Train"}},
        {"metadata": {"name": "t" * 48}},
        {"metadata": {"labels": {"updraft/run": "a b"}}},
    ],
)
def test_the_server_refuses_what_the_real_one_would(change: dict[str, Any]) -> None:
    wrong = {**JOB, **{key: {**JOB[key], **value} for key, value in change.items()}}
    check_rayjob(JOB)
    with pytest.raises(Refused):
        check_rayjob(wrong)
