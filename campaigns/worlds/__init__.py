"""Simulated worlds whose truth is known: what the examples run on and the tests measure against."""

from campaigns.worlds.base import World, known_worlds, world

__all__ = ["World", "known_worlds", "world"]
