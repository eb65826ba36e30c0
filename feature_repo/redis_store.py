"""Feast's Redis online store, named by a URL, and what Feast leaves open there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis import Redis
from redis import asyncio as redis_asyncio
from redis.exceptions import RedisError

from campaigns.errors import EnvironmentProblem
from feature_repo.online import PATIENCE

WAIT: dict[str, Any] = {"socket_connect_timeout": 5, "socket_timeout": 30}
HELD = 60.0  # seconds after which a writer that was killed no longer keeps the others out


class UrlRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """``online_store: {type: feature_repo.redis_store.UrlRedisOnlineStore, url: redis://...}``.

    Feast's own check of times would refuse a correction for the same moment, and going back
    (``materialize(until=...)``): which row counts is decided before it is written, under a lock.
    """

    type: str = "feature_repo.redis_store.UrlRedisOnlineStore"
    url: str
    skip_dedup: bool = True


class UrlRedisOnlineStore(RedisOnlineStore):
    """Feast's store; passwords, TLS and the database's number come with the URL."""

    _client: Any = None
    _client_async: Any = None

    def _get_client(self, online_store_config: Any) -> Any:
        if not self._client:
            self._client = Redis.from_url(online_store_config.url, **WAIT)
        return self._client

    async def _get_client_async(self, online_store_config: Any) -> Any:
        if not self._client_async:
            self._client_async = redis_asyncio.Redis.from_url(online_store_config.url, **WAIT)
        return self._client_async


class RedisState:
    """Who writes, and how far the store has come: in Redis itself, so that the two can't disagree."""

    def __init__(self, url: str, campaign: str) -> None:
        self.url, self.campaign = url, campaign

    def prepare(self) -> None:
        """See that the server is there."""
        with self.explained():
            self._client.ping()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One writer at a time, on whatever machine."""
        lock = self._client.lock(
            f"updraft:{self.campaign}:writer", timeout=HELD, blocking_timeout=PATIENCE
        )
        with self.explained(), lock:
            yield

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A server that is away, full or refuses says so in one sentence."""
        try:
            yield
        except RedisError as error:
            raise EnvironmentProblem(
                f"online features (UPDRAFT_FEAST_ONLINE): {error}; "
                "look whether Redis runs, has room and takes the password"
            ) from error

    def mark(self) -> datetime | None:
        """As :meth:`feature_repo.online.OnlineState.mark`."""
        with self.explained():
            micros: Any = self._client.get(self._mark)
        return None if micros is None else datetime.fromtimestamp(int(micros) / 1e6, UTC)

    def set_mark(self, created: datetime | None) -> None:
        """As :meth:`feature_repo.online.OnlineState.set_mark`."""
        with self.explained():
            if created is None:
                self._client.delete(self._mark)
            else:
                self._client.set(self._mark, round(created.timestamp() * 1e6))

    @property
    def _mark(self) -> str:
        return f"updraft:{self.campaign}:materialized"

    @cached_property
    def _client(self) -> Redis:
        return Redis.from_url(self.url, **WAIT)
