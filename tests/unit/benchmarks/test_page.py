"""The generated tables: each benchmark's JSON becomes tables, and the page has a place for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.models import __main__ as runner
from benchmarks.models.page import TABLES, block, measures
from benchmarks.models.tables import put

ROOT = Path(__file__).resolve().parents[3]
FOUND = {"pehe in": 0.5, "pehe out": 0.75, "ate in": 0.1, "ate out": 0.2, "seconds": 1.0}
ORDER = {"footrule": 0.1, "pearson": 0.9, "mcmv_aucc": 0.6, "value": 0.8, "seconds": 1.0}
STEPS = {f"{kind} {step}": 0.5 for kind in ("auc", "ece", "pehe") for step in ("visit", "cart", "buy")}  # fmt: skip
REPORTS = {
    "decisions": {
        "rows": 1000,
        "results": [
            {"world": "bonus", "seed": seed, "model": "mtmt", "at 10%": 0.5 + seed, "seconds": 2.0}
            for seed in (0, 1)
        ],
    },
    "uplift": {
        "results": [
            {
                **{"data": "bonus", "seed": 0, "arm": "coins", "outcome": "login"},
                **{"model": "mtmt", "Qini": 0.1, "AUUC": 0.2, "LIFT@30": 0.3, "seconds": 1.0},
            }
        ],
    },
    "selection": {
        "rows": 1000,
        "results": [
            {
                **{"world": "bonus", "seed": 0, "scope": "across nets", "criterion": "loss"},
                **{"at 20%": 0.9, "regret": 0.01, "rank": 0.5, "noise": 2.0, "apart": 0.5},
            }
        ],
    },
    "ihdp": {
        "published": {"CFR (published)": {"pehe in": 0.71}},
        "results": [{"replication": n, "model": "cfr", **FOUND} for n in (1, 2)],
    },
    "simultaneous": {
        "seeds": 2,
        "results": [
            {
                "setting": "a",
                "size": [1000, 5, 95],
                "method": "M3E2",
                "runs": [{"mae": 0.25, "seconds": 1.0}, {"mae": 0.25, "seconds": 2.0}],
            }
        ],
    },
    "doses": {
        "results": [
            {
                **{"rows": 3000, "seed": 0, "model": "dose_response", "purchase": 0.5},
                **{"revenue": 0.5, "reversed": 0.0, "value": 0.9, "seconds": 1.0},
            }
        ],
    },
    "factors": {
        "rows": 1000,
        "results": [{"factors": m, "seed": 0, "model": "xtnet", **ORDER} for m in (2, 3)],
    },
    "ranking": {
        "rows": 1000,
        "results": [
            {"data": "world", "seed": 0, "model": "r", "aucc": 0.6, "value@10%": float("nan")}
        ],
    },
    "conversion": {
        "rows": 1000,
        "quality": [{"seed": 0, "model": "esmm", "seconds": 3.0, **STEPS}],
        "cost": [{"fields": 10, "model": "apem", "seconds": 5.0, "weights": 12_000}],
    },
    "speed": {
        "product GFLOP/s": 20.0,
        "results": [
            {
                "batch": 256,
                "model": "mtmt",
                "rows/s": 1e4,
                "step": 0.025,
                "flops": 1e8,
                "GFLOP/s": 4.0,
                "products": 0.6,
                "input": 0.01,
            }
        ],
    },
}  # one of each, small
LINES = {
    "decisions": "| mtmt | 1.000 ± 6.353 | 2.0 |",
    "uplift": "| mtmt | 0.100 | 0.200 | 0.300 | 1.0 |",
    "selection": "| loss | 0.900 | 0.010 | 0.500 | 2.000 | 0.500 |",
    "ihdp": "| CFR (published) | 0.71 |  |  |  |  |",
    "simultaneous": "| M3E2 | 0.250 ± 0.000 | 1.5 |",
    "doses": "| dose_response | 0.500 | 0.500 | 0.000 | 0.900 | 1.0 |",
    "factors": "| xtnet | 0.100 | 0.900 | 0.600 | 0.800 | 1.0 |",
    "ranking": "| r | 0.600 |",
    "conversion": "| apem | 5.0 (12) |",
    "speed": "| mtmt | 10,000 | 25.0 | 100 | 4.0 | 20% | 60% | 1.0% |",
}


@pytest.mark.parametrize("name", TABLES)
def test_numbers_become_tables_with_their_command_and_machine(name):
    text = block(name, {"machine": "a machine", **REPORTS[name]}, f"python -m {name}")
    assert text.startswith(f"```console\npython -m {name}\n```\n\na machine.\n\n")
    assert LINES[name] in text.splitlines()
    widths = {line.count("|") for line in text.split("\n\n")[-1].splitlines()}
    assert len(widths) == 1


def test_the_page_has_a_place_for_every_benchmark_and_each_can_be_run():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in TABLES:
        assert "text" in put(page, name, "text")
        assert (ROOT / "benchmarks" / "models" / f"{name}.py").exists()


def test_measures_are_the_finite_numbers_with_seconds_last():
    records = [{"seed": 0.5, "seconds": 1.0, "b": 2.0, "c": float("nan")}, {"d": 1.0, "name": "x"}]
    assert list(measures(records, "seed")) == ["b", "d", "seconds"]


def test_benchmarks_are_run_and_written_and_what_fails_leaves_the_page(tmp_path, monkeypatch):
    """A process each: one leaves numbers, one has no data (exit 5), one fails."""
    script = tmp_path / "stand_in.py"
    script.write_text(
        "import json, sys\n"
        "name = sys.argv[2].rsplit('.', 1)[1]\n"
        f"reports = {json.dumps({'ihdp': 5, 'factors': 1})}\n"
        "if name in reports: sys.exit(reports[name])\n"
        f"report = {json.dumps({'machine': 'm', **REPORTS['speed']})!r}\n"
        "open(sys.argv[-1], 'w').write(report)\n"
    )
    page, real = tmp_path / "page.md", runner.subprocess.run
    page.write_text("".join(f"<!-- begin: {n} -->old<!-- end: {n} -->\n" for n in TABLES))

    def stand_in(words, **options):
        return real([words[0], str(script), *words[1:]], **options)

    monkeypatch.setattr(runner.subprocess, "run", stand_in)
    arguments = ["--page", str(page), "--folder", str(tmp_path), "--only", "speed,ihdp,factors"]
    monkeypatch.setattr(sys, "argv", ["models", "--full", *arguments])
    with pytest.raises(SystemExit, match="failed: factors"):
        runner.main()
    text = page.read_text()
    assert "python -m benchmarks.models.speed --full" in text
    assert LINES["speed"] in text
    assert text.count("old") == len(TABLES) - 1
