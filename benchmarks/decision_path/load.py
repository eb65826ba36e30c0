"""A load on the HTTP service: clients that each keep a connection and ask again once they are answered."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True)
class Load:
    """What the clients saw: answers a second, seconds of each, and CPU of a request in the clients."""

    rate: float
    latency: np.ndarray
    cpu: float

    def quantile(self, share: float) -> float:
        """Of the latency, in seconds."""
        return float(np.quantile(self.latency, share))


def load(
    url: str, path: str, bearer: str, body: dict[str, object], clients: int, seconds: float
) -> Load:
    """POST ``body``, one unit whose id is new each time, for so long."""
    return asyncio.run(_load(url, path, bearer, body, clients, seconds))


async def _load(
    url: str, path: str, bearer: str, body: dict[str, object], clients: int, seconds: float
) -> Load:
    place, numbers, taken = urlsplit(url), count(time.time_ns()), list[float]()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {bearer}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )

    async def client(until: float) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        while time.perf_counter() < until:
            unit = {**body, "unit_id": f"load-{next(numbers)}"}
            text = json.dumps({"units": [unit]})
            began = time.perf_counter()
            writer.write(f"{head}{len(text)}\r\n\r\n{text}".encode())
            status, answer = await _answer(reader)
            if status != 200:
                raise RuntimeError(f"the service answered {status}: {answer[:200]!r}")
            taken.append(time.perf_counter() - began)
        writer.close()

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(began + seconds))
    passed = time.perf_counter() - began
    return Load(len(taken) / passed, np.array(taken), (time.process_time() - cpu) / len(taken))


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body; of HTTP/1.1 what this service sends."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
    if b"content-length" in fields:
        return int(lines[0].split()[1]), await reader.readexactly(int(fields[b"content-length"]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return int(lines[0].split()[1]), b"".join(parts)
