"""CEVAE: its bound written out, answers that repeat, a confounder seen through proxies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.nets.cevae import FeatureLikelihood
from models.training import InMemoryBatches, TrainConfig, fit

torch.set_num_threads(1)
SHAPE = Shape(3, (4, 2), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"embedding": 2, "latent": 3, "width": 5}


def make_batch(rows: int = 8) -> Batch:
    rng = np.random.default_rng(0)
    y = np.column_stack([rng.integers(0, 2, rows), rng.normal(size=rows)]).astype(float)
    y[0] = np.nan
    ids = np.column_stack([rng.integers(0, 4, rows), rng.integers(0, 2, rows)])
    arm, weight = np.arange(rows) % 3, rng.uniform(0.5, 1.5, rows)
    return Batch.of(rng.normal(size=(rows, 3)), ids, arm, y, np.full(rows, 1 / 3), weight)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


class Slow:
    """The net for one row at a time."""

    def __init__(self, net) -> None:
        self.w = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.w[name + ".weight"] @ x + self.w[name + ".bias"]

    def of_arm(self, name: str, arm: int, x: np.ndarray) -> np.ndarray:
        for layer in (0, 2):
            x = x @ self.w[f"{name}.{layer}.weight"][arm] + self.w[f"{name}.{layer}.bias"][arm, 0]
            x = relu(x) if layer == 0 else x
        return x

    def encode(self, numbers: np.ndarray, ids: np.ndarray) -> np.ndarray:
        table = self.w["features.embedding.table.weight"]
        x = np.concatenate([numbers, table[ids[0]], table[4 + ids[1]]])
        return relu(self.linear("encode.0.2", relu(self.linear("encode.0.0", x))))

    def posterior(self, hidden: np.ndarray, arm: int, y: np.ndarray) -> tuple[np.ndarray, ...]:
        found = self.of_arm("infer", arm, np.concatenate([hidden, y - self.w["start"]]))
        return found[:3], np.exp(found[3:] - 1.0)

    def imputed(self, hidden: np.ndarray, arm: int) -> np.ndarray:
        links = self.of_arm("guess_outcome", arm, hidden) + self.w["start"]
        return np.array([sigmoid(links[0]), links[1]])

    def outcome_loss(self, links: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
        links = links + self.w["start"]
        p = sigmoid(links[0])
        entropy = -(y[0] * np.log(p) + (1 - y[0]) * np.log(1 - p))
        return float(mask[0] * entropy + mask[1] * (y[1] - links[1]) ** 2)


@pytest.mark.parametrize("seen", [True, False])
def test_the_bound_written_out(seen):
    weights = {"kl": 0.3, "reconstruction": 0.7}
    net = build("cevae", SHAPE, {**SMALL, **weights, "see_outcomes": seen}, seed=1).eval()
    net.start_from([0.4, 0.1])
    batch, slow = make_batch(), Slow(net)
    expected = dict.fromkeys(["outcome", "features", "treatment", "kl", "auxiliary"], 0.0)
    for row in range(8):
        numbers, ids = batch.x_num[row].double().numpy(), batch.x_cat[row].numpy()
        y, mask = batch.y[row].double().numpy(), batch.y_mask[row].numpy()
        arm, share = int(batch.arm[row]), float(batch.weight[row]) / 8
        hidden = slow.encode(numbers, ids)
        shown = np.where(seen * mask > 0, y, slow.imputed(hidden, arm))
        mean, spread = slow.posterior(hidden, arm, shown)
        given = slow.outcome_loss(slow.of_arm("outcome", arm, mean), y, mask)
        decoded = relu(slow.linear("decode.0.2", relu(slow.linear("decode.0.0", mean))))
        logits = slow.linear("likelihood.logits", decoded)
        errors = numbers - slow.linear("likelihood.mean", decoded)
        surprise = -np.log(softmax(logits[:4])[ids[0]]) - np.log(softmax(logits[4:])[ids[1]])
        reader = slow.linear("arm.2", relu(slow.linear("arm.0", mean)))
        guess = slow.outcome_loss(slow.of_arm("guess_outcome", arm, hidden), y, mask)
        chance = softmax(slow.linear("guess_arm", hidden))[arm]
        expected["outcome"] += share * given
        expected["features"] += share * (0.5 * (errors**2).sum() + surprise)
        expected["treatment"] -= share * np.log(softmax(reader)[arm])
        expected["kl"] += share * (0.5 * (mean**2 + spread**2 - 1) - np.log(spread)).sum()
        expected["auxiliary"] += share * (guess - np.log(chance))
    with torch.no_grad():
        terms = {name: float(term) for name, term in net(batch).items()}
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value, rel=1e-4), name
    total = sum(expected.values()) - 0.3 * expected["features"] - 0.7 * expected["kl"]
    total -= 0.7 * expected["treatment"]
    assert terms["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("samples", [0, 4])
def test_an_answer_averages_over_arms_and_draws(samples):
    net = build("cevae", SHAPE, {**SMALL, "samples": samples}, seed=1)
    batch, slow = make_batch(), Slow(net)
    expected = np.zeros((8, 3, 2))
    for row in range(8):
        hidden = slow.encode(batch.x_num[row].double().numpy(), batch.x_cat[row].numpy())
        chance = softmax(slow.linear("guess_arm", hidden))
        for given in range(3):
            mean, spread = slow.posterior(hidden, given, slow.imputed(hidden, given))
            for noise in net.draws.double().numpy():
                for arm in range(3):
                    links = slow.of_arm("outcome", arm, mean + spread * noise)
                    response = np.array([sigmoid(links[0]), links[1]])
                    expected[row, arm] += chance[given] * response / len(net.draws)
    with torch.no_grad():
        answer = net.potential_outcomes(batch.x_num, batch.x_cat)
        again = net.potential_outcomes(batch.x_num, batch.x_cat)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert torch.equal(answer, again)
    assert len(net.draws) == max(samples, 1)
    torch.testing.assert_close(net.draws.sum(0), torch.zeros(3))


def test_normalizers_of_categories_survive_huge_logits():
    likelihood = FeatureLikelihood(SHAPE, 5)
    logits = torch.tensor([[300.0, 0.0, -5.0, 1.0, -400.0, -401.0]])
    expected = torch.stack([logits[0, :4].logsumexp(0), logits[0, 4:].logsumexp(0)])
    torch.testing.assert_close(likelihood.normalizers(logits)[0], expected)


def test_training_draws_anew_and_evaluation_does_not():
    net, batch = build("cevae", SHAPE, SMALL, seed=1), make_batch()
    assert net(batch)["outcome"] != net(batch)["outcome"]
    net.eval()
    assert net(batch)["outcome"] == net(batch)["outcome"]


def test_a_confounder_seen_through_proxies_is_adjusted_for():
    """The binary z of the paper's toy world (section 5.1), with five noisy copies."""
    rng = np.random.default_rng(0)
    z = rng.random(4000) < 0.5
    x = np.where(z[:, None], 1.0, -1.0) + 1.0 * rng.normal(size=(4000, 5))
    arm = (rng.random(4000) < np.where(z, 0.75, 0.25)).astype(int)
    y = (1.5 * z + 0.5 * arm + 0.3 * rng.normal(size=4000))[:, None]
    naive = y[arm == 1].mean() - y[arm == 0].mean()
    rows = Batch.of(x, np.zeros((4000, 0)), arm, y)
    net = build("cevae", Shape(5, (), ((0,), (1,)), ("continuous",)), {"kl": 1.0}, seed=0)
    config = TrainConfig(epochs=8, batch_size=256, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        answer = net.potential_outcomes(rows.x_num, rows.x_cat)[..., 0].mean(0)
    assert naive > 1.1
    assert float(answer[1] - answer[0]) == pytest.approx(0.5, abs=0.15)
