"""What every pod must be: small, pinned, without root, and made only of what exists."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.unit.infra.manifests import (
    HAS_BUILDER,
    INFRA,
    ROOT,
    TARGETS,
    WITHOUT,
    Object,
    Pod,
    build,
    cluster,
    of,
    pods,
    quantity,
    ray_cluster,
    title,
)

PODS = [(target, pod) for target in TARGETS for pod in pods(build(target))]
each_pod = pytest.mark.parametrize(
    "pod", [p for _, p in PODS], ids=[f"{t}:{p.where}" for t, p in PODS]
)

# Secrets are brought: each is in infra/README.md, with these keys.
SECRETS = {
    "postgres": {"password"},
    "ray-gcs-redis": {"password"},
    "updraft-features": {"database", "online"},
    "updraft-object-store": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "updraft-serving": {"token"},
    "updraft-stores": {"events", "mlflow"},
}
BROUGHT = {"updraft-campaign"}  # the ConfigMap with the campaign file


def test_there_are_pods_of_every_kind() -> None:
    assert {pod.where.split()[0] for _, pod in PODS} >= {
        "Deployment",
        "StatefulSet",
        "RayService",
        "RayJob",
    }


@each_pod
def test_no_root_and_no_privileges(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["runAsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    assert all("hostPath" not in volume for volume in pod.spec.get("volumes", []))
    for container in pod.containers:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in own
        assert all("hostPort" not in port for port in container.get("ports", []))


@each_pod
def test_requests_and_limits(pod: Pod) -> None:
    for container in pod.containers:
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        assert set(asked) == set(most) >= {"cpu", "memory"}
        for name, amount in asked.items():
            assert 0 < quantity(amount) <= quantity(most[name]), name


def test_the_autoscaler_is_as_small_and_as_confined() -> None:
    scaling = [
        ray_cluster(each)["autoscalerOptions"]
        for target in TARGETS
        for each in of(build(target), "RayJob")
        if "autoscalerOptions" in ray_cluster(each)
    ]
    assert scaling
    for options in scaling:
        assert options["securityContext"]["allowPrivilegeEscalation"] is False
        assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(options["resources"]) == {"requests", "limits"}


@each_pod
def test_images_are_pinned_and_ours_have_the_release(pod: Pod) -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in pod.containers:
        name, _, tag = container["image"].partition(":")
        assert tag not in ("", "latest")
        if name.startswith("updraft/"):
            assert tag == release
            assert name.removeprefix("updraft/") in ("step", "ray-cpu", "ray-gpu")


@each_pod
def test_only_autoscaling_heads_hold_an_api_token(pod: Pod) -> None:
    assert pod.spec["serviceAccountName"].startswith("updraft-")
    scaling = {
        title(each)
        for target in TARGETS
        for each in of(build(target), "RayJob")
        if ray_cluster(each).get("enableInTreeAutoscaling")
    }
    allowed = pod.where.endswith(" head") and pod.where.removesuffix(" head") in scaling
    assert allowed or pod.spec["automountServiceAccountToken"] is False


@each_pod
def test_volumes_and_mounts_agree(pod: Pod) -> None:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
    mounted = {mount["name"] for each in pod.containers for mount in each.get("volumeMounts", [])}
    claimed = {"data"} if pod.where.startswith("StatefulSet") else set()  # of volumeClaimTemplates
    assert mounted == volumes | claimed


@each_pod
def test_probes_name_ports_of_their_container(pod: Pod) -> None:
    for container in pod.containers:
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in (f"{kind}Probe" for kind in ("startup", "readiness", "liveness")):
            checks = container.get(probe, {})
            port = (checks.get("httpGet") or checks.get("tcpSocket") or {}).get("port")
            assert port is None or port in ports, f"{probe} of {container['name']}"


@pytest.mark.parametrize("target", ["overlays/dev", "overlays/production"])
def test_what_pods_refer_to_exists_or_is_documented(target: str) -> None:
    objects = cluster(target)
    there = {(each["kind"], each["metadata"]["name"]) for each in objects}
    page = (INFRA / "README.md").read_text()
    for pod in pods(objects):
        assert ("ServiceAccount", pod.spec["serviceAccountName"]) in there, pod.where
        for kind, name, key in _references(pod):
            if kind == "Secret":
                assert name in SECRETS, f"{pod.where}: secret {name}"
                assert key is None or key in SECRETS[name], f"{pod.where}: {name} has no {key}"
                assert f"`{name}`" in page
            elif name in BROUGHT:
                assert f"`{name}`" in page
            else:
                assert (kind, name) in there, f"{pod.where}: {kind} {name}"


def _references(pod: Pod) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    for container in pod.containers:
        for source in container.get("envFrom", []):
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in source:
                    found.append((kind, source[field]["name"], None))
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                found.append(("Secret", reference["name"], reference["key"]))
    for volume in pod.spec.get("volumes", []):
        if "configMap" in volume:
            found.append(("ConfigMap", volume["configMap"]["name"], None))
        if "persistentVolumeClaim" in volume:
            found.append(
                ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], None)
            )
    return found


def test_the_script_makes_every_secret_of_the_dev_overlay() -> None:
    script = (INFRA / "dev-secrets.sh").read_text().replace("\\\n", " ")
    made = {
        name: set(re.findall(r"--from-literal=(\w+)=", arguments))
        for name, arguments in re.findall(r"^ +make_secret ([\w-]+) (.*)$", script, re.M)
    }
    assert made == {name: keys for name, keys in SECRETS.items() if name != "updraft-object-store"}


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_is_written_down(target: str) -> None:
    objects = build(target)
    assert of(objects, "Secret") == []
    for pod in pods(objects):
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search(
                    r"TOKEN|PASSWORD|SECRET|KEY|EVENT_STORE|BACKEND_STORE|FEAST_", variable["name"]
                ):
                    assert set(variable) == {"name", "valueFrom"}, (
                        f"{pod.where}: {variable['name']}"
                    )
    for each in of(objects, "ConfigMap"):
        assert not re.search(r"://[^/\s]+:[^/\s]+@", str(each["data"])), title(each)


@pytest.mark.skipif(not HAS_BUILDER, reason=WITHOUT)
def test_a_small_cluster_holds_the_dev_overlay() -> None:
    """Requests of all pods at once, training included: a laptop's 8 CPUs and 24 GiB are enough."""
    copies = {"RayService updraft replicas": 2}
    total: dict[str, float] = {"cpu": 0.0, "memory": 0.0}
    for pod in pods(cluster("overlays/dev")):
        for container in pod.containers:
            for name, amount in container["resources"]["requests"].items():
                total[name] += quantity(amount) * copies.get(pod.where, 1)
    assert set(total) == {"cpu", "memory"}, "no GPUs on a laptop"
    assert total["cpu"] <= 4
    assert total["memory"] <= 12 * 2**30


def test_environment_variables_are_settings_of_ours_or_known_libraries() -> None:
    from campaigns.settings import QUIET, Settings

    ours = {f"UPDRAFT_{name.upper()}" for name in Settings.model_fields}
    libraries = ("MLFLOW_", "POSTGRES_", "REDIS_", "PGDATA")
    for target in TARGETS:
        objects = build(target)
        for each in of(objects, "ConfigMap"):
            if each["metadata"]["name"] == "updraft-settings":
                assert set(each["data"]) <= ours | set(QUIET), each["data"]
        for pod in pods(objects):
            names = {v["name"] for c in pod.containers for v in c.get("env", [])}
            assert all(n in ours | set(QUIET) or n.startswith(libraries) for n in names), pod.where


def test_the_settings_are_read_as_meant() -> None:
    from campaigns.settings import QUIET, Settings

    (config,) = (
        each
        for each in of(build("base"), "ConfigMap")
        if each["metadata"]["name"] == "updraft-settings"
    )
    data: Object = config["data"]
    values = {
        k.removeprefix("UPDRAFT_").lower(): v for k, v in data.items() if k.startswith("UPDRAFT_")
    }
    settings = Settings.model_validate(values)
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.root.is_relative_to("/var/lib/updraft")
    assert {k: v for k, v in data.items() if k in QUIET} == {
        k: QUIET[k] for k in data if k in QUIET
    }
