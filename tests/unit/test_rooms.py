"""The rooms of the house: imports run downwards only, and nothing heavy is imported early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_imports_run_downwards_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("campaigns.loading", "torch ray kfp feast mlflow evidently sklearn"),
        ("campaigns.worlds", "torch ray kfp feast mlflow evidently sklearn"),
        ("serving.policy.allocation", "torch ray kfp feast mlflow evidently pandas"),
        ("models.metrics", "torch ray kfp feast mlflow evidently sklearn"),
        ("models.training", "ray kfp feast mlflow evidently"),
        ("pipelines.cli", "torch ray kfp feast mlflow evidently"),
    ],
)
def test_what_a_module_needs_is_all_it_imports(module: str, heavy: str) -> None:
    """The training loop runs without Ray installed; the command line answers at once."""
    code = f"import sys, {module}; print(*(set({heavy.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_environment_is_read_in_one_place() -> None:
    rooms = ("campaigns", "models", "feature_repo", "serving", "components", "pipelines")
    readers = [
        path.relative_to(ROOT).as_posix()
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if any(word in path.read_text() for word in ("os.getenv", "environ.get(", "environ["))
    ]
    assert readers == []
