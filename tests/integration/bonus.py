"""The small campaign that the tests on a real Ray train on."""

from __future__ import annotations


def bonus_text(
    model: str = "{}", *, name: str = "bonus", rows: int = 24_000, source: str | None = None
) -> str:
    """A campaign file on the simulated game, with six of its numbers and two of its categories.

    Args:
        model: The ``model`` key, in YAML's flow style.
        name: The campaign's, which draws its folds.
        rows: Of the simulated log.
        source: The ``source`` key in its place, in YAML's flow style.
    """
    source = source or f"{{kind: simulator, world: game_bonus, rows: {rows}}}"
    return f"""
name: {name}
unit: player_id
source: {source}
timestamp: event_timestamp
features:
  numeric: [days_since_login, games_7d, win_rate_7d, sessions_30d, session_minutes, friends]
  categorical: [device, region]
treatments:
  bonus: {{column: bonus, control: none, levels: {{none: , coins: {{cost: 0.30}}, skin: {{cost: 0.55}}}}}}
propensity: propensity
outcomes:
  login_next_day: {{kind: binary, value: 1.0}}
  plays_more_7d: {{kind: binary, value: 2.0}}
budget: {{amount: 350.0}}
model: {model}
"""
