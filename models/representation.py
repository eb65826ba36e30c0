"""What the heads of representation nets read: a trunk over the features."""

from __future__ import annotations

from torch import Tensor, nn

from models.data import Shape
from models.layers import MLP, FeatureVector


class Representation(nn.Module):
    """Linear, ReLU and dropout a layer over the features: [B, F_n] and [B, F_c] -> [B, width]."""

    def __init__(
        self, shape: Shape, embedding: int, width: int, layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = FeatureVector(shape, embedding)
        hidden = [width] * (layers - 1)
        self.layers = nn.Sequential(MLP(self.features.width, hidden, width, dropout), nn.ReLU())

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.layers(self.features(x_num, x_cat))
