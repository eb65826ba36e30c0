"""Runs the benchmarks of the models one after the other, and writes what they found into the docs.

Each is a process of its own and leaves a JSON file in the folder; its tables replace what stands
between its markers in the page. A benchmark that can't run here (its data are missing) or fails leaves
its part of the page as it was.

Run: ``python -m benchmarks.models [--full] [--only ihdp,speed] [--tables]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.models.page import TABLES, block
from benchmarks.models.tables import put
from campaigns.errors import EnvironmentProblem

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run, write, and exit 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--full", action="store_true", help="the long form of each, in hours")
    parser.add_argument("--only", default=",".join(TABLES), help="some of %(default)s")
    parser.add_argument("--tables", action="store_true", help="run nothing, write what is there")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := sorted(set(names) - set(TABLES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(TABLES)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        file = options.folder / f"{name}.json"
        if not options.tables and not run(name, file, options.full):
            failed.append(name)
        if file.exists():
            write(options.page, name, file)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run(name: str, file: Path, full: bool) -> bool:
    """Whether a benchmark went well, or couldn't be expected to; its numbers are then in the file."""
    file.unlink(missing_ok=True)
    words = ["-m", f"benchmarks.models.{name}", *(["--full"] if full else [])]
    command = " ".join(["python", *words])
    print(f"{command}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, *words, "--json", str(file)], cwd=ROOT).returncode
    print(f"{name}: {time.monotonic() - started:.0f} s, exit {code}", flush=True)
    if code:
        file.unlink(missing_ok=True)
        return code == EnvironmentProblem.exit_code
    report = json.loads(file.read_text())
    file.write_text(json.dumps({**report, "command": command}, indent=1))
    return True


def write(page: Path, name: str, file: Path) -> None:
    """Put a benchmark's tables between its markers."""
    report = json.loads(file.read_text())
    page.write_text(put(page.read_text(), name, block(name, report, report["command"])))


if __name__ == "__main__":
    main()
