"""One page for people on what a run found: put a :class:`RunReport` together, then :func:`render` it."""

from models.report.data import (
    CampaignFacts,
    Density,
    EstimatorRow,
    PartsDensity,
    PolicyRow,
    RunReport,
)
from models.report.page import render
from models.report.parts import parts_densities

__all__ = [
    "CampaignFacts",
    "Density",
    "EstimatorRow",
    "PartsDensity",
    "PolicyRow",
    "RunReport",
    "parts_densities",
    "render",
]
