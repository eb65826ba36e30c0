"""The simulation keeps to what queueing theory and plain arithmetic say of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.decision_path.simulation import Clock, Costs, Resource, simulate

COSTS = Costs(1e-4, 2e-4, 1e-3, (1e-3, 1e-5), (1e-3, 4e-4), 2e-3)


def test_one_client_waits_for_nothing_but_the_work() -> None:
    found = simulate(COSTS, replicas=2, cores=2, clients=1, seconds=40)
    alone = 1e-4 + 2e-4 + 1e-3 + 1.01e-3 + 1.4e-3 + 2e-3
    assert found.latency.mean() == pytest.approx(alone, rel=0.03)
    assert found.rate * found.latency.mean() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("clients", [4, 32])
def test_littles_law_holds(clients: int) -> None:
    found = simulate(COSTS, replicas=2, cores=2, clients=clients, seconds=20)
    assert found.rate * found.latency.mean() == pytest.approx(clients, rel=0.03)
    assert found.busy["cores"] <= 1.001


def test_the_lock_bounds_what_a_store_can_take() -> None:
    found = simulate(COSTS, replicas=16, cores=float("inf"), rate=4000, seconds=5)
    assert 0.8 / 4e-4 < found.rate < 1 / 4e-4
    assert found.busy["lock"] > 0.95


def test_cores_bound_what_a_machine_can_do() -> None:
    free = Costs(0.0, 0.0, 2e-3, (0.0, 0.0), (0.0, 0.0), 0.0)
    found = simulate(free, replicas=8, cores=2, clients=32, seconds=10)
    assert found.rate == pytest.approx(1000, rel=0.05)


def test_arrivals_below_what_it_can_take_are_all_answered() -> None:
    found = simulate(COSTS, replicas=2, cores=float("inf"), rate=100, seconds=30)
    assert found.rate == pytest.approx(100, rel=0.06)
    assert found.quantile(0.5) < found.quantile(0.99)
    again = simulate(COSTS, replicas=2, cores=float("inf"), rate=100, seconds=30)
    assert np.array_equal(found.latency, again.latency)


def test_who_finds_no_place_is_served_in_turn() -> None:
    clock, place, order = Clock(), Resource(1), []

    def user(name: str):
        yield place
        order.append((name, clock.now))
        yield 1.0
        clock.release(place)

    for name in "abc":
        clock.start(user(name))
    clock.run(10.0)
    assert order == [("a", 0.0), ("b", 1.0), ("c", 2.0)]
