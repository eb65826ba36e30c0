"""How far apart the arms' representations are: MMD and Sinkhorn, each treated arm against control.

Sizes: B rows, d width, A arms. Every measure takes representations [B, d], the arm of each row [B]
and its weight [B], and answers a value for each treated arm, [A - 1]: 0 where its rows and control's
are the same sets, and where either has no row of positive weight. Row order doesn't matter.

* :func:`linear_mmd`: squared distance of the means (Shalit et al. 2017, appendix).
* :func:`rbf_mmd`: squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, the
  V-statistic, which is never negative).
* :func:`sinkhorn`: entropic optimal transport, less what entropy alone costs (Cuturi 2013; Feydy et
  al. 2019, "Interpolating between optimal transport and MMD using Sinkhorn divergences").

All are computed in float32 whatever the precision of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor

MEASURES = ("mmd", "mmd_rbf", "wasserstein")


def imbalance(
    measure: str, rows: Tensor, arm: Tensor, weight: Tensor, arms: int, most: int
) -> Tensor:
    """One number to minimise: the arms' discrepancies, weighted by their shares of the treated.

    Representations are centred and divided by their root mean square radius first, so that a trunk
    gains nothing by shrinking them, and kernels and blurs need no tuning. An arm with few rows has a
    discrepancy of mere chance: the shares keep many rare arms from being nothing but noise.

    Args:
        measure: One of ``MEASURES``.
        rows: Representations, [B, d].
        arm: Arm of each row, [B]; 0 is control.
        weight: Weight of each row, [B], none negative.
        arms: A.
        most: Look at no more than so many rows, evenly spaced (pairs of rows cost their square).
    """
    step = -(-len(rows) // most)
    arm, weight = arm[::step], weight[::step].float()
    with torch.autocast(rows.device.type, enabled=False):
        scaled = standardise(rows[::step].float(), weight)
        if measure == "mmd":
            values = linear_mmd(scaled, arm, weight, arms)
        elif measure == "mmd_rbf":
            values = rbf_mmd(scaled, arm, weight, arms)
        else:
            values = sinkhorn(scaled, arm, weight, arms)
        mass = totals(weight, arm, arms)[1:]
        return (values * mass).sum() / mass.sum().clamp_min(1e-12)


def standardise(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows [B, d] about their mean, in units of their root mean square distance from it."""
    share = (weight / weight.sum().clamp_min(1e-12))[:, None]
    centred = rows - (share * rows).sum(0)
    square = (share * centred.square()).sum()
    return centred * square.clamp_min(1e-12).rsqrt()


def totals(values: Tensor, arm: Tensor, arms: int) -> Tensor:
    """Sums of values [B, ...] over the rows of each arm, [A, ...]."""
    return values.new_zeros(arms, *values.shape[1:]).index_add(0, arm, values)


def linear_mmd(rows: Tensor, arm: Tensor, weight: Tensor, arms: int) -> Tensor:
    """Squared distance between the means of each treated arm and of control, [A - 1]."""
    mass = totals(weight, arm, arms)
    means = totals(rows * weight[:, None], arm, arms) / mass.clamp_min(1e-12)[:, None]
    distance = (means[1:] - means[0]).square().sum(-1)
    return distance * _comparable(mass)


def rbf_mmd(
    rows: Tensor, arm: Tensor, weight: Tensor, arms: int, *, bandwidth: float = 1.0
) -> Tensor:
    """Squared MMD of each treated arm and control, [A - 1], kernel exp(-|x - y|^2 / (2 h^2)).

    The default h suits :func:`standardise`: |x - y|^2 averages 2, so the kernel averages about 1/e.
    """
    mass = totals(weight, arm, arms)
    share = weight / mass.clamp_min(1e-12)[arm]
    kernel = (-squared_distances(rows, rows) / (2 * bandwidth**2)).exp()
    kernel = share[:, None] * kernel * share
    means = totals(totals(kernel, arm, arms).T, arm, arms)  # [A, A]: mean kernel of two arms
    own = means.diagonal()
    return (own[1:] + own[0] - means[1:, 0] - means[0, 1:]) * _comparable(mass)


def sinkhorn(
    rows: Tensor,
    arm: Tensor,
    weight: Tensor,
    arms: int,
    *,
    blur: float = 1.0,
    steps: int = 10,
) -> Tensor:
    """Sinkhorn divergence of each treated arm and control under squared distance, [A - 1].

    S(a, 0) = OT(a, 0) - (OT(a, a) + OT(0, 0)) / 2 with OT(a, b) = min_P <P, C> + blur KL(P | a b'),
    by updates of the dual potentials in the log domain:

        f_i <- (f_i + softmin_j(C_ij - g_j)) / 2,    softmin_j = -e log sum_j b_j exp(-. / e)

    and the same of g at once, so that the answer is symmetric. The number of updates is fixed; e
    falls geometrically from the largest cost to ``blur`` over the first half of them. Gradients are
    those of the envelope theorem, dOT/dC = P: the updates are not unrolled. As ``blur`` falls (and
    ``steps`` rise) S nears the squared 2-Wasserstein distance. The default blur is half the mean
    cost of :func:`standardise`: between samples of a few hundred rows in 64 dimensions S then is
    0.03 by chance alone, where a tenth of that blur makes it 1.2, of 2 that are possible.

    A treated row is transported from its own arm only, so f holds one number a row and an update
    costs as much for many arms as for one: every treated row times every control row.
    """
    treated, control = (side.nonzero().squeeze(1) for side in (arm > 0, arm == 0))
    if not len(treated) or not len(control):
        return rows.new_zeros(arms - 1) + 0.0 * rows.sum()
    mass = totals(weight, arm, arms)
    log_share = (weight / mass.clamp_min(1e-12)[arm]).log()
    log_share = torch.where(mass[arm] > 0, log_share, 0.0)  # finite where the answer is 0 anyway
    whole = torch.cat([control, treated])
    own = squared_distances(rows[whole], rows[whole])
    cross = own[len(control) :, : len(control)]
    seen = (weight[whole] > 0).to(own.dtype)
    temperatures = _temperatures((own.detach() * seen * seen[:, None]).amax(), blur, steps)
    within = _within(own, arm[whole], log_share[whole], arms, temperatures)
    logs = log_share[treated], log_share[control]
    between = _between(cross, arm[treated] - 1, *logs, arms - 1, temperatures)
    return (between - 0.5 * (within[1:] + within[0])) * _comparable(mass)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, [n, m], of [n, d] and [m, d]; never below 0."""
    sizes = x.square().sum(-1)[:, None] + y.square().sum(-1)
    return torch.addmm(sizes, x, y.T, alpha=-2.0).clamp_min(0.0)


def _comparable(mass: Tensor) -> Tensor:
    """1 for the treated arms that can be compared with control, [A - 1]."""
    return ((mass[1:] > 0) & (mass[0] > 0)).to(mass.dtype)


def _temperatures(largest: Tensor, blur: float, steps: int) -> Tensor:
    """The e of each update, [steps]: from the largest cost down to ``blur``, then ``blur``."""
    left = (1.0 - torch.arange(steps, device=largest.device) / max(steps // 2, 1)).clamp_min(0.0)
    return blur * (largest.clamp_min(blur) / blur) ** left


def _within(cost: Tensor, arm: Tensor, log_share: Tensor, arms: int, eps: Tensor) -> Tensor:
    """OT of each arm with itself, [A]; costs [n, n], both potentials are one, [n]."""
    with torch.no_grad():
        apart = arm[:, None] != arm
        costs = cost.masked_fill(apart, torch.inf)
        potential = torch.zeros_like(log_share)
        for e in eps:
            update = -e * torch.logsumexp(log_share + (potential - costs) / e, dim=1)
            potential = 0.5 * (potential + update)
        scores = log_share + (potential - costs) / eps[-1]
        value = 2.0 * -eps[-1] * torch.logsumexp(scores, dim=1) * log_share.exp()
        plan = scores.softmax(1) * log_share.exp()[:, None]
    return totals(_with_gradient(value, (plan * cost).sum(1)), arm, arms)


def _between(
    cost: Tensor, group: Tensor, log_a: Tensor, log_b: Tensor, groups: int, eps: Tensor
) -> Tensor:
    """OT of the rows of each group with the same m others, [G].

    Args:
        cost: [n, m].
        group: Of each of the n rows, [n].
        log_a: Log of each row's share of its group, [n].
        log_b: Log of the others' shares, [m].
        groups: G.
        eps: Temperature of each update.
    """

    def to_others(f: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [n, m] of the columns' softmin and its log-sum [G, m] over each group."""
        scores = log_a[:, None] + (f[:, None] - cost) / e
        top = scores.new_full((groups, len(log_b)), -torch.inf)
        top = top.scatter_reduce(0, group[:, None].expand_as(scores), scores, "amax")
        return scores, top + totals((scores - top[group]).exp(), group, groups).log()

    with torch.no_grad():
        there = totals(torch.ones_like(log_a), group, groups) > 0
        f, g = torch.zeros_like(log_a), cost.new_zeros(groups, len(log_b))
        for e in eps:
            f_scores = log_b + (g[group] - cost) / e
            _, log_sums = to_others(f, e)
            f = 0.5 * (f - e * torch.logsumexp(f_scores, dim=1))
            g = 0.5 * (g - e * log_sums)
        e = eps[-1]
        f_scores = log_b + (g[group] - cost) / e
        g_scores, log_sums = to_others(f, e)
        from_rows = totals(-e * torch.logsumexp(f_scores, dim=1) * log_a.exp(), group, groups)
        from_others = torch.where(there, -e * (log_sums * log_b.exp()).sum(1), 0.0)
        # Either set of potentials gives a plan with one exact marginal; their mean is symmetric.
        plan = f_scores.softmax(1) * log_a.exp()[:, None]
        plan = 0.5 * (plan + (g_scores - log_sums[group]).exp() * log_b.exp())
    moved = totals((plan * cost).sum(1), group, groups)
    return _with_gradient(from_rows + from_others, moved)


def _with_gradient(value: Tensor, source: Tensor) -> Tensor:
    """A value with the gradient of another."""
    return value + (source - source.detach())
