"""Discrepancies between arms against slow definitions, exact transport, and what must hold of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from models.balance import (
    MEASURES,
    imbalance,
    linear_mmd,
    rbf_mmd,
    sinkhorn,
    squared_distances,
    standardise,
)

torch.set_num_threads(1)
FEW = settings(max_examples=15, deadline=None)
FUNCTIONS = {"mmd": linear_mmd, "mmd_rbf": rbf_mmd, "wasserstein": sinkhorn}
every_measure = pytest.mark.parametrize("measure", MEASURES)


def rows_of(seed: int, n: int = 40, width: int = 3, arms: int = 3) -> tuple[torch.Tensor, ...]:
    """Rows [n, d], arms and weights; treated arms are shifted."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, arms, n)
    rows = rng.normal(size=(n, width)) + 0.5 * arm[:, None]
    weight = rng.uniform(0.2, 2.0, n)
    return torch.tensor(rows).float(), torch.tensor(arm), torch.tensor(weight).float()


def slow_transport(
    x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, blur: float
) -> float:
    """Entropic OT of two weighted sets in double precision, until its marginals hold."""
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(5000):
        for i in range(len(a)):
            f[i] = -blur * np.log(np.sum(b * np.exp((g - cost[i]) / blur)))
        for j in range(len(b)):
            g[j] = -blur * np.log(np.sum(a * np.exp((f - cost[:, j]) / blur)))
        plan = a[:, None] * b * np.exp((f[:, None] + g - cost) / blur)
        if np.abs(plan.sum(1) - a).max() < 1e-10:
            break
    entropy = np.sum(plan * np.log(plan / (a[:, None] * b)))
    return float(np.sum(plan * cost) + blur * entropy)


def slow(measure: str, x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray) -> float:
    """The measure between two weighted sets, as it is defined."""
    a, b = a / a.sum(), b / b.sum()
    if measure == "mmd":
        return float(((a @ x - b @ y) ** 2).sum())
    if measure == "wasserstein":
        between = slow_transport(x, a, y, b, 1.0)
        return between - (slow_transport(x, a, x, a, 1.0) + slow_transport(y, b, y, b, 1.0)) / 2
    total = 0.0
    signed = [(r, w) for r, w in zip(x, a)] + [(r, -w) for r, w in zip(y, b)]
    for one, w in signed:
        for other, v in signed:
            total += w * v * np.exp(-((one - other) ** 2).sum() / 2)
    return float(total)


@every_measure
def test_each_measure_is_its_definition_arm_by_arm(measure):
    rows, arm, weight = rows_of(0, n=18)
    values = FUNCTIONS[measure](rows, arm, weight, 3, **exactly(measure))
    x, w, given_arm = rows.double().numpy(), weight.double().numpy(), arm.numpy()
    control = given_arm == 0
    for a in (1, 2):
        mine = given_arm == a
        expected = slow(measure, x[mine], w[mine], x[control], w[control])
        assert float(values[a - 1]) == pytest.approx(expected, rel=2e-3, abs=1e-5)


def exactly(measure: str) -> dict[str, int]:
    """Enough updates that the fixed number of them is no error."""
    return {"steps": 200} if measure == "wasserstein" else {}


def test_the_default_number_of_updates_is_nearly_enough():
    for seed, width in ((0, 2), (1, 16), (2, 64)):
        rows, arm, weight = rows_of(seed, n=120, width=width)
        scaled = standardise(rows, weight)
        soon, late = (sinkhorn(scaled, arm, weight, 3, steps=steps) for steps in (10, 300))
        torch.testing.assert_close(soon, late, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_sinkhorn_nears_exact_transport_as_blur_falls(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + rng.normal(size=2)
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    exact = cost[linear_sum_assignment(cost)].mean()
    rows = torch.tensor(np.concatenate([x, y])).float()
    arm = torch.arange(40) // 20
    errors = [
        abs(float(sinkhorn(rows, arm, torch.ones(40), 2, blur=blur, steps=steps)) / exact - 1)
        for blur, steps in ((1.0, 100), (0.1, 500), (0.01, 1500))
    ]
    assert errors[2] < 0.02
    assert errors[2] < errors[0]


def test_a_shift_costs_its_square_however_blurred():
    """Moving a set by v costs |v|^2, in Sinkhorn divergence and between means."""
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([0.5, -1.0, 0.0, 0.25])
    both, arm = torch.cat([rows, rows + shift]), torch.arange(120) // 60
    expected = shift.square().sum()[None]
    for blur in (0.5, 1.0, 3.0):
        moved = sinkhorn(both, arm, torch.ones(120), 2, blur=blur, steps=300)
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(linear_mmd(both, arm, torch.ones(120), 2), expected)


@every_measure
def test_equal_sets_are_no_distance_apart(measure):
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(30, generator=torch.Generator().manual_seed(2)) + 0.1
    both, arm = rows.repeat(3, 1), torch.arange(90) // 30
    both.requires_grad_()
    values = FUNCTIONS[measure](both, arm, weight.repeat(3), 3)
    torch.testing.assert_close(values, torch.zeros(2), atol=2e-6, rtol=0)
    values.sum().backward()
    torch.testing.assert_close(both.grad, torch.zeros_like(both), atol=1e-5, rtol=0)


@every_measure
@FEW
@given(seed=st.integers(0, 10_000))
def test_symmetric_in_the_two_sets(measure, seed):
    rows, arm, weight = rows_of(seed, arms=2)
    function = FUNCTIONS[measure]
    there, back = function(rows, arm, weight, 2), function(rows, 1 - arm, weight, 2)
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)


@every_measure
@FEW
@given(seed=st.integers(0, 10_000))
def test_row_order_does_not_matter_and_a_weight_is_a_repetition(measure, seed):
    rows, arm, weight = rows_of(seed)
    function = FUNCTIONS[measure]
    whole = function(rows, arm, weight, 3)
    order = torch.randperm(len(arm), generator=torch.Generator().manual_seed(seed))
    moved = function(rows[order], arm[order], weight[order], 3)
    torch.testing.assert_close(moved, whole, rtol=1e-4, atol=1e-5)
    times = torch.randint(0, 3, (len(arm),), generator=torch.Generator().manual_seed(seed))
    repeated = (each.repeat_interleave(times, dim=0) for each in (rows, arm, weight))
    torch.testing.assert_close(
        function(rows, arm, weight * times, 3), function(*repeated, 3), rtol=1e-4, atol=1e-5
    )


@every_measure
@FEW
@given(seed=st.integers(0, 10_000))
def test_sets_apart_are_further_apart_than_nothing(measure, seed):
    rows, arm, weight = rows_of(seed)
    far, options = rows + 3.0 * (arm == 2)[:, None], exactly(measure)
    near = FUNCTIONS[measure](rows, arm, weight, 3, **options)
    moved = FUNCTIONS[measure](far, arm, weight, 3, **options)
    assert (near > -1e-5).all()
    if (arm == 2).any() and (arm == 0).any():
        assert moved[1] > near[1]
    torch.testing.assert_close(moved[0], near[0], rtol=1e-3, atol=1e-4)


@every_measure
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_an_arm_without_rows_is_no_distance_away(measure, gone):
    rows, arm, weight = rows_of(3)
    kept = arm != gone
    rows = rows[kept].requires_grad_()
    values = FUNCTIONS[measure](rows, arm[kept], weight[kept], 3)
    assert torch.isfinite(values).all()
    assert all(values[a - 1] == 0 for a in (1, 2) if gone in (0, a))
    values.sum().backward()
    assert torch.isfinite(rows.grad).all()
    weightless = FUNCTIONS[measure](rows_of(3)[0], arm, torch.where(kept, weight, 0.0), 3)
    torch.testing.assert_close(weightless, values.detach())


@every_measure
def test_gradients_are_those_of_small_differences(measure):
    rows, arm, weight = rows_of(5, n=20)
    rows.requires_grad_()
    options = exactly(measure)
    FUNCTIONS[measure](rows, arm, weight, 3, **options).sum().backward()
    direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ahead, behind = (
            FUNCTIONS[measure](rows + step * direction, arm, weight, 3, **options).sum()
            for step in (0.01, -0.01)
        )
    slope = float((ahead - behind) / 0.02)
    assert float((rows.grad * direction).sum()) == pytest.approx(slope, rel=0.02)


def test_distances_are_never_negative():
    rows = torch.full((5, 8), 1e3) + torch.rand(5, 8)
    assert (squared_distances(rows, rows) >= 0).all()
    x, y = torch.randn(4, 3), torch.randn(6, 3)
    expected = ((x[:, None] - y[None]) ** 2).sum(-1)
    torch.testing.assert_close(squared_distances(x, y), expected, rtol=1e-4, atol=1e-5)


@every_measure
def test_imbalance_knows_neither_place_nor_scale_and_weighs_arms_by_their_rows(measure):
    rows, arm, weight = rows_of(7)
    plain = imbalance(measure, rows, arm, weight, 3, 1000)
    torch.testing.assert_close(
        imbalance(measure, 1e-2 * rows + 3, arm, weight, 3, 1000), plain, rtol=1e-3, atol=1e-4
    )
    values = FUNCTIONS[measure](standardise(rows, weight), arm, weight, 3)
    mass = torch.stack([weight[arm == a].sum() for a in (1, 2)])
    torch.testing.assert_close(plain, (values * mass).sum() / mass.sum())


@every_measure
@pytest.mark.parametrize("arms", [[0, 0, 0], [1, 1, 1], [0]])
def test_imbalance_of_one_sided_batches_is_nothing(measure, arms):
    rows = torch.ones(len(arms), 4, requires_grad=True)
    value = imbalance(measure, rows, torch.tensor(arms), torch.ones(len(arms)), 2, 100)
    assert float(value.detach()) == 0
    value.backward()
    assert torch.isfinite(rows.grad).all()


def test_imbalance_is_float32_under_autocast_and_looks_at_so_many_rows():
    rows, arm, weight = rows_of(8, n=64)
    for measure in MEASURES:
        full = imbalance(measure, rows, arm, weight, 3, 64)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(imbalance(measure, rows, arm, weight, 3, 64), full)
        some = imbalance(measure, rows[::4], arm[::4], weight[::4], 3, 64)
        assert torch.equal(imbalance(measure, rows, arm, weight, 3, 16), some)


@every_measure
def test_members_of_an_ensemble_are_measured_at_once_as_one_by_one(measure):
    """Each with representations and weights of its own; one weighs a whole arm as nothing."""
    rows, arm, weight = rows_of(11)
    views, weights = torch.stack([rows, 2 * rows[:, [1, 0, 2]]]), torch.stack([weight, weight])
    weights[1, arm == 2] = 0.0

    def measured(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[measure](rows, arm, weight, 3)

    together = torch.vmap(measured)(views, weights)
    torch.testing.assert_close(together, torch.stack(list(map(measured, views, weights))))
    assert together[1, 1] == 0


@every_measure
def test_descent_brings_the_arms_together(measure):
    rows, arm, weight = rows_of(9, n=60)
    rows = rows.requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=0.05)
    first = float(imbalance(measure, rows, arm, weight, 3, 60).detach())
    for _ in range(60):
        optimizer.zero_grad()
        imbalance(measure, rows, arm, weight, 3, 60).backward()
        optimizer.step()
    assert float(imbalance(measure, rows, arm, weight, 3, 60).detach()) < 0.1 * first
