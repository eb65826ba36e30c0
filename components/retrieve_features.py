"""The log and what Updraft decided since, joined with the features as they were known then."""

from typing import NamedTuple

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retrieve_features(campaign: str, training_frame: dsl.Output[dsl.Dataset]) -> NamedTuple(
    "Retrieved", [("campaign", str), ("rows", int)]
):
    """Read the log, add logged decisions, and join features point-in-time through Feast.

    Args:
        campaign: The campaign, as JSON.
        training_frame: One row a decision (Parquet).

    Returns:
        The campaign with its features spelled out (JSON), and the frame's number of rows.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from campaigns.loading import parse_campaign
    from components.step import running
    from feature_repo.retrieval import load_online, retrieve, spelled_out
    from models.suitability import check_campaign
    from serving.events import EventStore

    with running("retrieve_features") as step:
        spec, log = spelled_out(parse_campaign(campaign))
        check_campaign(spec)
        store = EventStore(step.settings.event_store_url)
        logged = store.decisions_frame(spec, now=datetime.now(UTC))
        rows = retrieve(spec, logged, log, step.settings, Path(training_frame.path), say=step.say)
        load_online(spec, step.settings, say=step.say)
        training_frame.metadata.update(rows=rows, campaign=spec.name)
        step.say(f"{rows:,} decisions, {len(logged):,} of them Updraft's own")
        return spec.model_dump_json(), rows
