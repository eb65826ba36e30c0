"""What a step's RayJob runs, on the head: its task, from and to the exchange."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from campaigns.errors import UpdraftError
from components.exchange import Exchange
from components.lease import end_without
from components.on_ray import DONE, FAILED, FRAME, TASK
from components.ray_tasks import TASKS
from components.step import running


def main(place: str) -> None:
    """Do the task that is laid out there; leave its outputs, or why it failed."""
    from models.ray_session import attach

    exchange = Exchange(place)
    told = exchange.read(TASK)
    if told is None:
        sys.exit(
            f"{exchange.uri(TASK)}: isn't there; the step and its RayJob must share that place"
        )
    exchange.forget(FAILED)
    with tempfile.TemporaryDirectory() as folder, running(told["step"]) as step:
        local = {name: str(Path(folder) / name) for name in [*told["inputs"], *told["outputs"]]}
        for name in told["inputs"]:
            if name == FRAME:
                local[name] = exchange.uri(name)
            else:
                exchange.get(name, local[name])
        extra = {"run": "train"} if told["task"] == "train" else {}  # goes on from its checkpoint
        end_without(exchange, step.say)
        try:
            attach(step.settings)
            done = TASKS[told["task"]](
                step, exchange.uri("ray"), **told["arguments"], **local, **extra
            )
            for name in told["outputs"]:
                exchange.put(local[name], name)
        except UpdraftError as error:
            exchange.write(FAILED, {"message": str(error), "exit_code": error.exit_code})
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            exchange.write(FAILED, {"message": message, "exit_code": 1})
            raise
        exchange.write(DONE, done)


if __name__ == "__main__":
    main(sys.argv[1])
