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

    from campaigns.loading import parse_campaign
    from components.step import running
    from feature_repo.retrieval import resolved, retrieve
    from models.suitability import check_campaign
    from serving.events import EventStore

    with running("retrieve_features") as step:
        spec, table = resolved(parse_campaign(campaign))
        check_campaign(spec)
        store = EventStore(step.settings.event_store_url)
        logged = store.decisions_frame(spec, now=datetime.now(UTC))
        frame = retrieve(spec, logged, table, step.settings, say=step.say)
        frame.to_parquet(training_frame.path, index=False)
        training_frame.metadata.update(rows=len(frame), campaign=spec.name)
        step.say(f"{len(frame):,} decisions, {len(logged):,} of them Updraft's own")
        return spec.model_dump_json(), len(frame)
