"""PLE: experts of each outcome apart from those that outcomes share, level by level.

Tang et al. 2020, "Progressive layered extraction (PLE): a novel multi-task learning model for
personalized recommendations", with the treatment among the fields that the first level reads. One
level is the paper's CGC. Where the paper is silent we chose: experts end in a ReLU, gates have a
bias.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedInput, TreatedMLP
from models.data import Shape
from models.experts import Extraction, Streams
from models.layers import Stacked, StackedMLP
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class PLEConfig(NetConfig):
    """Settings of PLE."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    levels: int = integer(2, 1, 4, "Levels of extraction.", search=Span(1, 2))
    own: int = integer(1, 1, 32, "Experts of an outcome, each level.", search=Span(1, 3))
    shared: int = integer(2, 1, 32, "Experts of all outcomes, each level.", search=Span(1, 3))
    width: int = integer(64, 2, 4096, "Width of an expert.", search=OneOf(32, 64, 128))
    tower: int = integer(32, 2, 4096, "Width of a tower's hidden layer.")
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class PLE(ConversionNet):
    """Levels of extraction and a tower for each outcome."""

    trunk = ("fields.embedding", "levels.0.experts.0.0.features")

    def __init__(self, shape: Shape, config: PLEConfig) -> None:
        super().__init__(shape, config.loss)
        self.fields = TreatedFields(shape, config.embedding)
        self.levels = nn.Sequential(
            *(self._level(level, shape.outcome_count, config) for level in range(config.levels))
        )
        sizes = (shape.outcome_count, config.width, [config.tower], 1, config.dropout)
        self.towers = StackedMLP(*sizes)

    def _level(self, level: int, tasks: int, config: PLEConfig) -> Extraction:
        own, shared, width = config.own, config.shared, config.width
        count, seen, last = tasks * own + shared, own + shared, level == config.levels - 1
        experts: nn.Module
        gates: list[nn.Module]
        if level == 0:
            widths = self.fields.widths
            experts = TreatedMLP(count, widths, [width], width, config.dropout)
            gates = [TreatedInput(tasks, widths, seen), TreatedInput(1, widths, count)]
        else:
            read = [task for task in range(tasks) for _ in range(own)] + [tasks] * shared
            experts = Streams(StackedMLP(count, width, [width], width, config.dropout), read)
            gates = [
                Streams(Stacked(tasks, width, seen), range(tasks)),
                Streams(Stacked(1, width, count), [tasks]),
            ]
        return Extraction(
            tasks,
            own,
            shared,
            experts=nn.Sequential(experts, nn.ReLU()),
            gate=gates[0],
            shared_gate=None if last else gates[1],
        )

    def answer(self, rows: Treated) -> Tensor:
        return self.towers(self.levels(rows)).squeeze(-1).T


ENTRY = Entry(
    name="ple",
    net=PLE,
    config=PLEConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Tang et al. 2020, Progressive layered extraction: a novel multi-task learning model for "
    "personalized recommendations",
)
