"""What is told where no Kubeflow answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from campaigns.errors import CampaignError, RemoteError
from campaigns.settings import Settings
from pipelines import kfp_api, kubeflow


@contextmanager
def listening(*, answer: bytes | None = None) -> Iterator[int]:
    """A port that takes connections and says the same to each, or nothing ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer is None:
            yield server.getsockname()[1]
            return

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(1)


def refusal(endpoint: str | None) -> str:
    with pytest.raises(RemoteError) as caught:
        kubeflow.list_schedules(Settings(kfp_endpoint=endpoint))
    return str(caught.value)


def test_no_endpoint_names_the_setting_and_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPDRAFT_KFP_ENDPOINT", raising=False)
    with pytest.raises(CampaignError, match="UPDRAFT_KFP_ENDPOINT, or give --endpoint URL"):
        kubeflow.list_schedules(Settings())


@pytest.mark.parametrize("endpoint", ["localhost:8888", "ftp://x", "http://", "kubeflow"])
def test_what_is_no_url_is_told(endpoint: str) -> None:
    with pytest.raises(CampaignError, match="is no URL; write one such as"):
        kubeflow.list_schedules(Settings(kfp_endpoint=endpoint))


def test_nobody_there_is_told_at_once() -> None:
    with listening() as port:
        pass
    told = refusal(f"http://127.0.0.1:{port}/")
    assert told.startswith(f"http://127.0.0.1:{port}: can't be reached (")
    assert "Connection refused" in told
    assert "\n" not in told


def test_an_unknown_host_is_told() -> None:
    assert "can't be reached" in refusal("http://no.such.host.invalid")


def test_a_server_without_tls_is_told() -> None:
    with listening(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "no secure connection (SSLError" in refusal(f"https://127.0.0.1:{port}")


def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfp_api, "TIMEOUT_S", (1, 0.2))
    with listening() as port:
        assert "no answer (" in refusal(f"http://127.0.0.1:{port}")


def test_the_address_of_a_page_of_the_ui_will_do() -> None:
    settings = Settings(kfp_endpoint=" https://k.example.com/pipeline/#/runs ")
    assert kfp_api._endpoint(settings) == "https://k.example.com/pipeline"
