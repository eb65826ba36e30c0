"""A discrete-event simulation of the decision path.

A request costs its client and the proxy some CPU, then a replica's interpreter (which runs one thing at a time)
for HTTP. It waits for the replica's batcher, which takes all that waits: features and model first, then one
transaction alone under the campaign's lock, ended by the store's flush, during which the interpreter is free.
Every CPU second also takes one of the machine's cores. What waits is served in turn.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

Process = Generator[Any, None, None]


@dataclass(frozen=True)
class Costs:
    """Seconds; of a batch, fixed and for each decision.

    Attributes:
        client, proxy, http: CPU of a request in the load generator, the proxy, and a replica.
        model: CPU of features and model, before the lock.
        write: CPU under the lock.
        flush: Waiting for the store under the lock, without a CPU.
    """

    client: float
    proxy: float
    http: float
    model: tuple[float, float]
    write: tuple[float, float]
    flush: float


class Resource:
    """Some places; whoever finds none free waits in turn."""

    def __init__(self, places: float) -> None:
        self.free, self.waiting, self.busy = places, deque[Process](), 0.0

    def ask(self, process: Process) -> bool:
        """Whether it has a place now; else it waits for one."""
        if self.free <= 0:
            self.waiting.append(process)
            return False
        self.free -= 1
        return True


@dataclass
class Queue:
    """Processes that wait to be served together, and their server while it sleeps."""

    waiting: deque[Process] = field(default_factory=deque)
    asleep: Process | None = None


@dataclass(frozen=True)
class Sleep:
    """Asked for by a queue's server: until somebody joins the queue."""

    queue: Queue


class Clock:
    """Runs processes: generators that yield seconds to pass, a resource to hold, or a queue to wait in."""

    def __init__(self) -> None:
        self.now, self._order = 0.0, count()
        self._events: list[tuple[float, int, Process]] = []

    def start(self, process: Process, after: float = 0.0) -> None:
        heapq.heappush(self._events, (self.now + after, next(self._order), process))

    def release(self, resource: Resource) -> None:
        if resource.waiting:
            self.start(resource.waiting.popleft())
        else:
            resource.free += 1

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, process = heapq.heappop(self._events)
            for asked in process:
                if not self._goes_on(process, asked):
                    break

    def _goes_on(self, process: Process, asked: Any) -> bool:
        if isinstance(asked, Resource):
            return asked.ask(process)
        if isinstance(asked, Queue):
            asked.waiting.append(process)
            if asked.asleep is not None:
                self.start(asked.asleep)
                asked.asleep = None
        elif isinstance(asked, Sleep):
            asked.queue.asleep = process
        else:
            self.start(process, asked)
        return False


@dataclass(frozen=True)
class Result:
    """What clients saw after the warm-up.

    Attributes:
        rate: Answers a second.
        latency: Seconds of each.
        busy: Share of the time that the lock, a replica's interpreter and the cores were busy.
    """

    rate: float
    latency: np.ndarray
    busy: dict[str, float]

    def quantile(self, share: float) -> float:
        """Of the latency, in seconds."""
        return float(np.quantile(self.latency, share)) if len(self.latency) else float("nan")


def simulate(
    costs: Costs,
    *,
    replicas: int,
    cores: float,
    clients: int = 0,
    rate: float = 0.0,
    seconds: float = 10.0,
    warm_up: float = 1.0,
    batch: int = 1000,
    seed: int = 0,
) -> Result:
    """Clients that ask again as soon as they are answered, or Poisson arrivals.

    Args:
        costs: Mean service times; half of each is fixed, the other half exponential.
        replicas: Processes that answer, asked in turn.
        cores: Of the machine, for all of them; ``inf``: each process has its own.
        clients: So many in a closed loop; or
        rate: arrivals a second.
        seconds, warm_up: Simulated time after the warm-up, and before.
        batch: Most decisions of a transaction.
        seed: Of all draws.
    """
    clock, draw, seen = Clock(), np.random.default_rng(seed), list[tuple[float, float]]()
    core, lock = Resource(cores), Resource(1)
    interpreters, queues = (
        [Resource(1) for _ in range(replicas)],
        [Queue() for _ in range(replicas)],
    )
    turns = count()

    def passes(mean: float, *held: Resource) -> Iterator[Any]:
        took = float(mean * 0.5 * (1.0 + draw.exponential()))
        yield from held
        for resource in held:
            resource.busy += took
        yield took
        for resource in held:
            clock.release(resource)

    def request() -> Process:
        began = clock.now
        if clients:
            yield from passes(costs.client + costs.proxy, core)
        at = next(turns) % replicas
        yield from passes(costs.http, interpreters[at], core)
        yield queues[at]
        seen.append((clock.now, clock.now - began))

    def client() -> Process:
        while True:
            yield from request()

    def arrivals() -> Process:
        while True:
            clock.start(request())
            yield float(draw.exponential(1 / rate))

    def batcher(interpreter: Resource, queue: Queue) -> Process:
        while True:
            while not queue.waiting:
                yield Sleep(queue)
            taken = [queue.waiting.popleft() for _ in range(min(batch, len(queue.waiting)))]
            yield from passes(_of(costs.model, len(taken)), interpreter, core)
            yield lock
            began = clock.now
            yield from passes(_of(costs.write, len(taken)), interpreter, core)
            yield from passes(costs.flush)
            lock.busy += clock.now - began
            clock.release(lock)
            for answered in taken:
                clock.start(answered)

    for interpreter, queue in zip(interpreters, queues):
        clock.start(batcher(interpreter, queue))
    for process in [client() for _ in range(clients)] or [arrivals()]:
        clock.start(process)
    end = warm_up + seconds
    clock.run(end)
    latency = np.array([taken for at, taken in seen if at > warm_up])
    busy = {
        "lock": lock.busy / end,
        "interpreter": sum(each.busy for each in interpreters) / replicas / end,
        "cores": core.busy / cores / end,
    }
    return Result(len(latency) / seconds, latency, busy)


def _of(cost: tuple[float, float], size: int) -> float:
    return cost[0] + cost[1] * size
