"""Simulated worlds whose truth is known: what the examples run on and the tests measure against."""

from campaigns.worlds.base import World, world

__all__ = ["World", "world"]
