"""Ensembles: M members of one net, trained and asked as one batched program.

Members differ in their first weights and, with ``bootstrap``, in how much each unit counts: a
weight of Exp(1) a unit and member (the Bayesian bootstrap, Rubin 1981), drawn by a hash of the unit,
so that it stays the same over epochs, workers and resumed runs. Their mean has less variance than
one net (Lakshminarayanan et al. 2017); their spread says where effects are uncertain.

Members share the trunk (what reads the features, ``Net.trunk``) or nothing. What they share is
computed once, the rest with stacked weights under ``torch.vmap``. The loss is the members' mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.data import Batch
from models.nets.base import Net

DOT = "/"  # in place of the dots of a parameter's name, which a ParameterDict doesn't take


class Ensemble(Net):
    """Members that answer as one: the mean of their outcomes.

    Args:
        members: Nets of one class and configuration, M of them; the first one gives the trunk.
        share: Whether they share the trunk.
        bootstrap: Whether each weighs units in its own way.
    """

    start: Tensor

    def __init__(self, members: Sequence[Net], *, share: bool, bootstrap: bool) -> None:
        nn.Module.__init__(self)
        first = members[0]
        self.shape, self.bootstrap = first.shape, bootstrap
        own = [
            name for name, _ in first.named_parameters() if not share or not _of(name, first.trunk)
        ]
        stacks = {
            name: [dict(net.named_parameters())[name].detach() for net in members] for name in own
        }
        self.stacked = nn.ParameterDict(
            {
                name.replace(".", DOT): nn.Parameter(torch.stack(each))
                for name, each in stacks.items()
            }
        )
        for name in own:  # the weights of the members stand in for them, at each call
            path, _, leaf = name.rpartition(".")
            first.get_submodule(path)._parameters[leaf] = None
        self.body = _Caller(first)
        self.register_buffer("logistic", first.logistic, persistent=False)

    @property
    def net(self) -> Net:
        """One member, without the weights that members don't share."""
        return self.body.net

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every term of the members' losses, averaged over them."""
        weight = batch.weight.expand(len(self), -1)
        if self.bootstrap and self.training:
            weight = weight * exponential(batch.unit, len(self))
        terms = self._each("weighted_loss", 0, batch, weight)
        return {name: term.mean(0) for name, term in terms.items()}

    def potential_outcomes(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Expected outcomes, the members' mean, [B, A, K]."""
        return self.member_outcomes(x_num, x_cat).mean(0)

    def member_outcomes(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Each member's expected outcomes, [M, B, A, K]."""
        return cast(Tensor, self._each("potential_outcomes", None, x_num, x_cat))

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """The members' parts by name, averaged; for nets that have them."""
        parts = self._each("parts", None, x_num, x_cat)
        return {name: part.mean(0) for name, part in parts.items()}

    def start_from(self, means: Sequence[float]) -> None:
        self.net.start_from(means)
        self.net.zero((name.replace(DOT, "."), each) for name, each in self.stacked.items())

    def __len__(self) -> int:
        return len(next(iter(self.stacked.values())))

    def _each(self, method: str, last: int | None, *inputs: Any) -> Any:
        """A method of every member, results stacked; the last input has one a member, or is shared."""
        weights = {f"net.{name.replace(DOT, '.')}": each for name, each in self.stacked.items()}

        def member(own: dict[str, Tensor], final: Any) -> Any:
            return functional_call(self.body, own, (method, *inputs[:-1], final))

        with warnings.catch_warnings():
            # attention has no batching rule on a CPU, so members take turns at it: still the faster way
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            return torch.vmap(member, in_dims=(0, last), randomness="different")(
                weights, inputs[-1]
            )


class _Caller(nn.Module):
    """Has ``functional_call`` reach any method of a net, not ``forward`` alone."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, method: str, *inputs: Any) -> Any:
        if method == "weighted_loss":
            batch, weight = inputs
            return self.net.loss(replace(batch, weight=weight))
        return getattr(self.net, method)(*inputs)


def exponential(unit: Tensor, members: int) -> Tensor:
    """Weights of Exp(1), one a member and unit: [B] int64 -> [M, B] float32, the same for ever.

    A hash in counter mode: the unit's number plus the member's multiple of the golden ratio goes
    through the finalizer of SplitMix64 (Steele et al. 2014).
    """
    steps = torch.arange(1, members + 1, device=unit.device)[:, None]
    bits = unit + steps * _signed(0x9E3779B97F4A7C15)
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    uniform = (_shifted(bits ^ _shifted(bits, 31), 40).double() + 0.5) * 2.0**-24
    return -torch.log(uniform).float()


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def _of(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
