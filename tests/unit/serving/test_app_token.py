"""The bearer token: made once, kept private, the same for every process."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings
from serving.token import is_token, token


def test_a_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, token=None)
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: token(settings), range(32)))
    assert len(tokens) == 1
    assert len(tokens.pop()) >= 40
    folder = tmp_path / "secrets"
    assert [path.name for path in folder.iterdir()] == ["token"]
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600


def test_the_settings_token_comes_first(tmp_path: Path) -> None:
    assert token(Settings(home=tmp_path, token=SecretStr("mine"))) == "mine"
    assert not (tmp_path / "secrets").exists()


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("\n")
    for settings in (Settings(home=tmp_path), Settings(home=tmp_path, token=SecretStr(""))):
        with pytest.raises(EnvironmentProblem, match="is empty"):
            token(settings)


def test_tokens_are_compared_whole() -> None:
    assert is_token("abc", "abc")
    assert not any(is_token(given, "abc") for given in ("", "ab", "abcd", "ABC", "äbc", "\ud800"))
