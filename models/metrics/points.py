"""The running sums along a ranking, for any number of weights: whole, or a stretch at a time.

A stretch is a few thousand rows, so that its sums and what is made of them stay in the cache. Areas and
cuts go over the ranking stretch by stretch and never hold a whole curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.metrics.checks import Array, Counts

if TYPE_CHECKING:
    from models.metrics.trial import Trial

Axis = Literal["units", "n_t", "n_c"]
_STRETCH = 1 << 14  # rows times replicates: a dozen arrays of it fit in a core's own cache
_LEAST = 1 << 9  # rows of a stretch, however many replicates: shorter ones are all overhead


class Stretch:
    """Sums at m + 1 consecutive points of the curve, for R replicates of weights.

    Attributes:
        n_t, n_c: treated and control units so far [R, m + 1].
        outcomes: Y_T and Y_C, the sums of their outcomes so far, each [R, m + 1].
        units: units so far, each with its own weight and no propensity [R, m + 1].
        total: all units of the ranking [R, 1].
    """

    def __init__(self, sums: Array, total: Array) -> None:
        self.sums = sums
        self.n_t, self.n_c = sums[0], sums[1]
        self.outcomes = sums[2], sums[3]
        self.total = total

    @cached_property
    def units(self) -> Array:
        """See above."""
        return self.sums[4] if len(self.sums) > 4 else self.n_t + self.n_c

    @cached_property
    def depth(self) -> Array:
        """Share of the units so far [R, m + 1], from 0 to 1."""
        return self.units / self.total

    @cached_property
    def control_rate(self) -> Array:
        """Y_C / N_C [R, m + 1], 0 without control units."""
        return ratio(self.outcomes[1], self.n_c)

    @cached_property
    def lift(self) -> Array:
        """Y_T / N_T - Y_C / N_C [R, m + 1]."""
        return ratio(self.outcomes[0], self.n_t) - self.control_rate

    @cached_property
    def extra(self) -> Array:
        """Y_T - Y_C * N_T / N_C [R, m + 1]."""
        return self.outcomes[0] - self.control_rate * self.n_t

    @property
    def areas(self) -> tuple[Array, Array]:
        """Areas under the gain and under the Qini curve between these points, over depth [R]."""
        step, total = np.diff(self.units, axis=1), self.total[:, 0]
        gain, extra = (
            np.einsum("rm,rm->r", step, y[:, 1:] + y[:, :-1]) / 2
            for y in (self.units * self.lift, self.extra)
        )
        return gain / total**2, extra / total


class Points:
    """A trial's curve under R replicates of weights [R, N], in the rows' order.

    Weights may be small integers, which are a fraction of the memory to draw and to put in order.

    Inverse-propensity weights are scaled within each group so that the group keeps its head count
    (Hajek): with constant propensities they cancel, and the usual formulas come out.
    """

    def __init__(self, trial: Trial, weight: Array | Counts) -> None:
        self.trial = trial
        self.weight = weight

    @cached_property
    def whole(self) -> Stretch:
        """The curve at all of its M + 1 points."""
        return next(self.stretches(len(self.trial.y)))

    @property
    def n_t(self) -> Array:
        """Treated units so far [R, M + 1]."""
        return self.whole.n_t

    @property
    def n_c(self) -> Array:
        """Control units so far [R, M + 1]."""
        return self.whole.n_c

    @property
    def units(self) -> Array:
        """Units so far [R, M + 1]."""
        return self.whole.units

    @property
    def depth(self) -> Array:
        """Share of the units so far [R, M + 1], from 0 to 1."""
        return self.whole.depth

    @cached_property
    def end(self) -> Stretch:
        """The curve's last point alone [R, 1]."""
        sums = np.zeros((4 if self._from_groups else 5, len(self.weight), 1))
        for start, stop in self._steps():
            added = np.empty((*sums.shape[:2], stop - start))
            self._fill(added, start, stop)
            sums[:, :, 0] += added.sum(axis=2)
        return Stretch(sums, self.total)

    @cached_property
    def total(self) -> Array:
        """All units [R, 1]."""
        return self._dot(None)

    @cached_property
    def defined(self) -> Array:
        """Which replicates drew somebody of both groups [R]."""
        return np.asarray((self.end.n_t > 0) & (self.end.n_c > 0))[:, 0]

    @cached_property
    def areas(self) -> tuple[Array, Array]:
        """Areas under the gain curve and under the Qini curve, both over depth [R]; one pass."""
        gain, extra = np.zeros((2, len(self.weight)))
        for piece in self.stretches():
            one, other = piece.areas
            gain += one
            extra += other
        return gain, extra

    @cached_property
    def cells(self) -> dict[tuple[bool, bool], Array]:
        """Sums [5, R] as a stretch has them, by (treated, responded), of binary outcomes."""
        trial, (n_t, n_c, y_t, y_c) = self.trial, self.end.sums[:4, :, 0]
        zero = np.zeros_like(n_t)
        parts = {
            (True, True): [y_t, zero, y_t, zero],
            (True, False): [n_t - y_t, zero, zero, zero],
            (False, True): [zero, y_c, zero, y_c],
            (False, False): [zero, n_c - y_c, zero, zero],
        }
        found = {}
        for (treated, responded), sums in parts.items():
            if self._from_groups:
                units = sums[0] + sums[1]
            else:
                inside = (trial.treated == treated) & (trial.y == responded)
                units = self._dot(inside.astype(np.float64))[:, 0]
            found[treated, responded] = np.stack([*sums, units])
        return found

    def at(self, axis: Axis, cut: Array) -> Array:
        """The sums n_t, n_c, Y_T, Y_C [4, R] where ``axis`` reaches ``cut`` [R].

        Inside a block of equal scores they are linear.
        """
        found, waiting = np.empty((4, len(cut))), np.ones(len(cut), dtype=bool)
        for piece in self.stretches():
            x = getattr(piece, axis)
            found[:, waiting] = piece.sums[:4, waiting, -1]  # where the end rounds to below the cut
            here = np.flatnonzero(waiting & (x[:, -1] >= cut))
            if len(here):
                right = np.clip((x[here] < cut[here, None]).sum(axis=1), 1, x.shape[1] - 1)
                low, high = x[here, right - 1], x[here, right]
                share = np.clip(ratio(cut[here] - low, high - low, 1.0), 0.0, 1.0)
                start, stop = (piece.sums[:4, here, side] for side in (right - 1, right))
                found[:, here] = start + share * (stop - start)
                waiting[here] = False
                if not waiting.any():
                    break
        return found

    def stretches(self, rows: int | None = None) -> Iterator[Stretch]:
        """The curve in pieces of ``rows`` rows, each from the point where the one before ended."""
        ranked = self.trial.ranked
        carry = np.zeros((4 if self._from_groups else 5, len(self.weight)))
        last = carry
        for start, stop in self._steps(rows):
            sums = np.empty((*carry.shape, stop - start + 1))
            sums[:, :, 0] = last
            self._fill(sums[:, :, 1:], start, stop)
            sums[:, :, 1] += carry
            np.cumsum(sums[:, :, 1:], axis=2, out=sums[:, :, 1:])
            carry = sums[:, :, -1].copy()
            if ranked.ends is not None:
                first, past = np.searchsorted(ranked.ends, [start, stop], side="right")
                kept = np.append(0, ranked.ends[first:past] - start)
                if len(kept) == 1:
                    continue
                sums = sums.take(kept, axis=2)
            last = sums[:, :, -1]
            yield Stretch(sums, self.total)

    def sums(self, values: Array) -> tuple[Array, Array]:
        """Weighted sums of ``values`` [N] so far over the treated and over control [R, M + 1]."""
        trial, weight = self.trial, self._ranked_weight
        ranked = trial.ranked
        mass = values[ranked.order] if ranked.inverse is None else (
            values[ranked.order] * ranked.inverse
        )  # fmt: skip
        treated, control = (
            self._cumulate(scale * (weight * (mass * member)))
            for member, scale in zip((ranked.treated, ranked.control), self._scales)
        )
        return treated, control

    def totals(self, values: Array) -> Array:
        """Sums of ``values`` [N] so far over all units, each with its own weight [R, M + 1]."""
        return self._cumulate(self._ranked_weight * values[self.trial.ranked.order])

    @cached_property
    def _ranked_weight(self) -> Array | Counts:
        if self.weight.strides[1] == 0:  # one weight for all rows, written once
            return self.weight
        return self.weight.take(self.trial.ranked.order, axis=1)

    @cached_property
    def _from_groups(self) -> bool:
        """Whether the units are the treated and the control units, without a sum of their own."""
        return self.trial.complete and self.trial.inverse is None

    @cached_property
    def _scales(self) -> tuple[Array, Array]:
        """Heads by inverse-propensity mass of each group [R, 1]."""
        trial = self.trial
        if trial.inverse is None:
            one = np.ones((len(self.weight), 1))
            return one, one
        treated, control = (
            ratio(self._dot(member.astype(np.float64)), self._dot(member * trial.inverse), 1.0)
            for member in (trial.treated, trial.control)
        )
        return treated, control

    def _steps(self, rows: int | None = None) -> Iterator[tuple[int, int]]:
        length = len(self.trial.y)
        step = rows or max(_LEAST, _STRETCH // len(self.weight))
        for start in range(0, length, step):
            yield start, min(start + step, length)

    def _fill(self, sums: Array, start: int, stop: int) -> None:
        """What the rows of a stretch add to each sum, [4 or 5, R, rows]."""
        ranked, (scale_t, scale_c) = self.trial.ranked, self._scales
        weight = self._ranked_weight[:, start:stop]
        mass = weight if ranked.inverse is None else weight * ranked.inverse[start:stop]
        np.multiply(mass, ranked.treated[start:stop], out=sums[0])
        if self.trial.complete:
            np.subtract(mass, sums[0], out=sums[1])
        else:
            np.multiply(mass, ranked.control[start:stop], out=sums[1])
        if ranked.inverse is not None:
            sums[0] *= scale_t
            sums[1] *= scale_c
        np.multiply(sums[:2], ranked.y[start:stop], out=sums[2:4])
        if not self._from_groups:
            sums[4] = weight

    def _cumulate(self, values: Array) -> Array:
        running = np.zeros((values.shape[0], values.shape[1] + 1))
        np.cumsum(values, axis=1, out=running[:, 1:])
        ends = self.trial.ranked.ends
        return running if ends is None else running.take(np.append(0, ends), axis=1)

    def _dot(self, values: Array | None) -> Array:
        """Weighted sum over the rows of ``values`` [N], or of ones [R, 1]."""
        if self.weight.strides[1] == 0:
            rows = len(self.trial.y)
            return self.weight[:, :1] * (rows if values is None else values.sum())
        if values is None:
            return self.weight.sum(axis=1, keepdims=True, dtype=np.float64)
        return np.einsum("rn,n->r", self.weight, values)[:, None]


def ratio(above: Array, below: Array, empty: float = 0.0) -> Array:
    """``above`` / ``below``, ``empty`` where ``below`` is 0."""
    if below.all():  # without a mask it is several times as fast
        return np.asarray(above / below)
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, empty), where=below != 0)
