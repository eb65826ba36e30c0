"""Ctrl-C and an end asked for otherwise, while Ray is at work."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

import pytest

from models.interrupt import interruptible


@pytest.mark.parametrize("code", [0, 1])
def test_rays_answer_to_ctrl_c_is_an_interrupt_and_its_handler_goes(code: int) -> None:
    before = signal.getsignal(signal.SIGINT)

    def rays(number: int, frame: FrameType | None) -> None:
        sys.exit(code)

    def train() -> None:
        with interruptible():
            signal.signal(signal.SIGINT, rays)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("code", [0, 15])
def test_another_exit_stays_what_it_is(code: int) -> None:
    with pytest.raises(SystemExit, match=str(code)), interruptible():
        sys.exit(code)


def test_another_listener_for_signals_hears_them_again_afterwards() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with interruptible():
            pass
        assert signal.set_wakeup_fd(before) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_beside_the_main_thread_signals_are_left_alone() -> None:
    ended: list[bool] = []

    def work() -> None:
        with interruptible():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
