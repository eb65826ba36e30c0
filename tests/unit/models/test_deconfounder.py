"""The deconfounder: a valid, tight bound; factors found where there are some, none in a trial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from models.catalog import build, catalog, lacks
from models.data import Batch, Shape
from models.nets.deconfounder import FactorModel, tilted_logsumexp, tilted_softplus
from models.training import InMemoryBatches, TrainConfig, fit

torch.set_num_threads(1)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
FACTORIAL = tuple(itertools.product((0, 1), repeat=4))


def randomized(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_tilted_bounds_lie_above_the_truth_and_below_jensens():
    mean, loading = randomized(5, 6), 1.5 * randomized(6, 1)
    drawn = mean.numpy()[:, None] + NODES[:, None] * loading.numpy()[:, 0]
    truth = np.log(np.exp(drawn).sum(-1)) @ WEIGHTS
    bound = tilted_logsumexp(mean, loading).numpy()
    jensen = torch.logsumexp(mean + 0.5 * loading.square().sum(1), dim=1).numpy()
    assert (bound >= truth - 1e-9).all()
    assert (bound <= jensen + 1e-9).all()
    assert (bound - truth).mean() < 0.8 * (jensen - truth).mean()
    single = tilted_softplus(mean, torch.full((6,), 4.0, dtype=torch.float64)).numpy()
    truth = np.log1p(np.exp(mean.numpy()[..., None] + 2.0 * NODES)) @ WEIGHTS
    assert (single >= truth - 1e-9).all()
    assert (single - truth).max() < 0.15


def test_without_loadings_the_bounds_are_exact():
    mean = randomized(5, 6)
    none = torch.zeros(6, 2, dtype=torch.float64)
    torch.testing.assert_close(tilted_logsumexp(mean, none), mean.logsumexp(1))
    torch.testing.assert_close(tilted_softplus(mean, none[:, 0]), mean.exp().log1p())


@pytest.mark.parametrize("listed", [True, False])
def test_the_bound_lies_below_the_likelihood_and_near_it_at_the_posterior(listed):
    """One factor, so that the likelihood is a sum over nodes; q is fitted for fixed loadings."""
    torch.manual_seed(0)
    model = FactorModel(4, 1).double()
    with torch.no_grad():
        model.loading.copy_(torch.tensor([[1.0], [0.8], [-0.7], [0.9]]))
        model.intercept.copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
    arms = torch.tensor(FACTORIAL[:11], dtype=torch.float64) if listed else None
    t = torch.tensor(FACTORIAL[:11] if listed else FACTORIAL, dtype=torch.float64)
    possible = t.numpy()
    scores = possible @ (model.loading.detach().numpy() * NODES + model.intercept[:, None].tolist())
    likelihood = np.log(np.exp(scores) / np.exp(scores).sum(0) @ WEIGHTS)
    chance = torch.tensor(np.exp(likelihood))
    optimizer = torch.optim.Adam([*model.infer.parameters(), model.log_spread], lr=0.02)
    for _ in range(500):
        optimizer.zero_grad()
        (-(chance * model.bound(t, arms=arms)).sum()).backward()
        optimizer.step()
    bound = model.bound(t, arms=arms).detach().numpy()
    assert (bound <= likelihood + 1e-9).all()
    assert chance.numpy() @ (likelihood - bound) < 0.05


def test_all_combinations_as_a_list_are_independent_columns_without_loadings():
    torch.manual_seed(0)
    model = FactorModel(4, 2, covariates=3).double()
    with torch.no_grad():
        model.loading.zero_()
        model.intercept.normal_()
    arms = torch.tensor(FACTORIAL, dtype=torch.float64)
    x = randomized(16, 3)
    torch.testing.assert_close(model.bound(arms, x, arms), model.bound(arms, x))


def test_gaussian_columns_reach_the_likelihood_of_probabilistic_pca():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 2))
    t = z @ rng.normal(size=(2, 7)) + 0.5 * rng.normal(size=(3000, 7)) + 1.0
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(t.T, bias=True)))[::-1]
    noise = spectrum[2:].mean()  # Tipping and Bishop 1999, equation 8
    logs = np.log(spectrum[:2]).sum() + 5 * np.log(noise)
    best = -0.5 * (7 * np.log(2 * np.pi) + logs + 7)
    torch.manual_seed(0)
    model, rows = FactorModel(7, 2, family="gaussian"), torch.tensor(t, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(800):
        optimizer.zero_grad()
        (-model.bound(rows).mean()).backward()
        optimizer.step()
    # columns have a noise of their own here, so a little above the PCA's is possible
    assert best - 0.05 < model.bound(rows).mean().item() < best + 0.05
    found = model.posterior(rows).detach().numpy()
    fitted = found @ np.linalg.lstsq(found, z, rcond=None)[0]
    assert ((z - fitted) ** 2).mean() < 0.15


def test_the_outcomes_do_not_shape_the_factor_model_nor_it_them():
    shape = Shape(2, (3,), FACTORIAL, ("continuous", "binary"))
    net = build("deconfounder", shape, {"width": 8}, seed=1)
    rng = np.random.default_rng(0)
    ids, y = rng.integers(0, 3, (32, 1)), rng.random((32, 2))
    batch = Batch.of(rng.normal(size=(32, 2)), ids, rng.integers(0, 16, 32), y)
    mine = {name for name, _ in net.named_parameters() if name.startswith("factors.")}
    for term, reached in [("outcome", set(dict(net.named_parameters())) - mine), ("factors", mine)]:
        net.zero_grad()
        net(batch)[term].backward()
        assert {name for name, p in net.named_parameters() if p.grad is not None} == reached


def test_answers_take_the_substitute_at_its_prior_mean():
    shape = Shape(2, (), FACTORIAL, ("continuous",))
    net = build("deconfounder", shape, {"width": 8}, seed=1)
    rng = np.random.default_rng(0)
    batch = Batch.of(rng.normal(size=(9, 2)), np.zeros((9, 0)), np.arange(9), np.zeros((9, 1)))
    torch.nn.init.normal_(net.factors.infer.weight)
    torch.nn.init.normal_(net.adjust.weight)
    with torch.no_grad():
        given = net.links(batch.x_num, batch.x_cat)[torch.arange(9), batch.arm]
        adjusted = net.factual(batch) - given
        torch.testing.assert_close(adjusted, net.substitute(batch) @ net.adjust.weight.mT)


def logged(trial: bool) -> tuple[Batch, np.ndarray]:
    """Six factors, all combinations; a hidden u moves them all in a log, none in a trial."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=6000)
    arms = np.array(list(itertools.product((0, 1), repeat=6)))
    lean = np.zeros(6000) if trial else 1.5 * u
    given = rng.random((6000, 6)) < 1 / (1 + np.exp(-lean[:, None]))
    arm = given @ (2 ** np.arange(6)[::-1])
    y = arms[arm].sum(1) * 0.2 + u + 0.3 * rng.normal(size=6000)
    return Batch.of(rng.normal(size=(6000, 1)), np.zeros((6000, 0)), arm, y[:, None]), u


@pytest.mark.parametrize("trial", [True, False])
def test_hidden_confounders_are_found_where_there_are_some(trial):
    rows, u = logged(trial)
    levels = tuple(itertools.product((0, 1), repeat=6))
    shape = Shape(1, (), levels, ("continuous",))
    net = build("deconfounder", shape, {"width": 64, "factors": 1}, seed=0)
    config = TrainConfig(epochs=6, batch_size=256, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        found = net.substitute(rows).numpy()[:, 0]
        links = net.links(rows.x_num, rows.x_cat)[:, :, 0].mean(0)
    if trial:
        assert found.std() < 0.2
        assert float(links[-1] - links[0]) == pytest.approx(1.2, abs=0.15)
    else:
        assert abs(np.corrcoef(found, u)[0, 1]) > 0.7
        y = rows.y.numpy()[:, 0]
        naive = y[rows.arm == 63].mean() - y[rows.arm == 0].mean()
        assert 1.2 < float(links[-1] - links[0]) < naive - 0.2, "part of the bias is gone"


def test_arms_that_exclude_each_other_by_design_are_no_sign_of_a_confounder():
    rng = np.random.default_rng(0)
    levels = tuple(tuple(int(i == arm - 1) for i in range(4)) for arm in range(5))
    arm = rng.integers(0, 5, 6000)
    y = (arm > 0) + 0.3 * rng.normal(size=6000)
    rows = Batch.of(rng.normal(size=(6000, 1)), np.zeros((6000, 0)), arm, y[:, None])
    net = build("deconfounder", Shape(1, (), levels, ("continuous",)), {"width": 16}, seed=0)
    config = TrainConfig(epochs=6, batch_size=256, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)[:, :, 0].mean(0)
    np.testing.assert_allclose(links[1:] - links[0], 1.0, atol=0.1)


def test_one_factor_is_refused():
    supports = catalog()["deconfounder"].supports
    assert lacks(supports, Shape(1, (), ((0,), (1,), (2,)), ("binary",)))
