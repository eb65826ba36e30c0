"""The Dockerfile's stages are the roles that the manifests name, without root, from the pinned versions."""

from __future__ import annotations

import re
import tomllib

import yaml

from campaigns.settings import Settings
from tests.unit.infra.manifests import INFRA, ROOT, TARGETS, build, pods

ROLES = {"step", "ray-cpu", "ray-gpu"}
LINES = re.sub(r"#.*\n", "", (INFRA / "images" / "Dockerfile").read_text()).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in LINES:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = [*found.get(match[1], [])]
        elif found and line:
            found[list(found)[-1]].append(line)
    return found


def test_roles_are_what_the_manifests_and_the_makefile_name() -> None:
    images = {
        c["image"] for target in TARGETS for pod in pods(build(target)) for c in pod.containers
    }
    used = {
        image.partition(":")[0].removeprefix("updraft/")
        for image in images
        if image.startswith("updraft/")
    }
    assert used == ROLES <= set(stages())
    (made,) = re.findall(r"^ROLES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert set(made.split()) == ROLES


def test_no_role_runs_as_root_and_each_ends_with_one_environment_and_our_code() -> None:
    for role in ROLES:
        *_, environment, code, user = stages()[role]
        source = "gpu" if role == "ray-gpu" else "cpu"
        assert environment == f"COPY --from={source} /opt/updraft /opt/updraft"
        assert "from=package" in code
        assert "pip install --no-cache-dir --no-deps /mnt/*.whl" in code
        assert user == "USER 1000:1000"


def test_our_code_and_the_builds_time_leave_the_dependencies_cached() -> None:
    """Else every commit installs gigabytes again, and every release is pushed and pulled whole."""
    for name in ("cpu", "gpu"):
        lines = stages()[name]
        assert "requirements.txt" in lines[-1]
        assert "COPY . ." not in lines
        assert not [line for line in lines if line.startswith("ARG SOURCE_DATE_EPOCH")]


def test_every_image_of_ours_has_this_release_kubeflows_steps_included() -> None:
    release = PROJECT["project"]["version"]
    images = {
        c["image"] for target in TARGETS for pod in pods(build(target)) for c in pod.containers
    }
    steps = yaml.safe_load((INFRA / "train" / "steps.yaml").read_text())["image"]
    assert steps == Settings().image == f"updraft/step:{release}"
    ours = {image for image in images if image.startswith("updraft/")}
    assert ours == {f"updraft/{role}:{release}" for role in ROLES}


def test_every_version_comes_from_the_constraints() -> None:
    installs = [line for line in LINES if "pip install" in line and "--no-deps" not in line]
    assert len(installs) == 4
    assert all("--constraint constraints.txt" in line for line in installs)
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    torch = {match for line in installs for match in re.findall(r"torch==([\d.]+)", line)}
    assert torch == {pins["torch"]}
    assert {"boto3", "psycopg", "psycopg-binary"} <= set(pins)  # of the extras s3 and postgres


def test_the_base_is_pinned_and_is_the_python_that_we_need() -> None:
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", "\n".join(LINES), re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert all(
        match in (*stages(), "${PYTHON_IMAGE}")
        for match in re.findall(r"^FROM (\S+)", "\n".join(LINES), re.M)
    )


def test_the_build_sees_the_package_and_nothing_else() -> None:
    ignore = (INFRA / "images" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "**" in ignore
    seen = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    packages = {
        name.removesuffix("*")
        for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert seen == packages | {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in seen)
    # Other builders look for a .dockerignore at the root alone, and would send the whole checkout.
    assert "DOCKER_BUILDKIT=1 docker build " in (ROOT / "Makefile").read_text()


def test_whatever_lies_beside_the_code_is_packed() -> None:
    """Campaigns, templates: a file that no pattern packs is missing in the image alone."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    packages = [name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]  # fmt: skip
    for path in (path for name in packages for path in (ROOT / name).rglob("*") if path.is_file()):
        if path.suffix in (".py", ".pyc"):
            continue
        folder = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        assert any(path.match(pattern) for pattern in patterns.get(folder, [])), path
        assert (path.parent / "__init__.py").exists(), path
