"""Pipelines on Kubeflow: run one now, or again and again by a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict

import kfp_server_api as kfp
import yaml

from campaigns.errors import CampaignError, choices
from campaigns.settings import Settings
from pipelines.compiling import compile_pipeline
from pipelines.cron import checked_cron
from pipelines.kfp_api import KfpApi, kfp_api
from pipelines.kfp_objects import (
    delete_recurring_run,
    find_experiment,
    recurring_runs,
    reference,
    version,
)
from pipelines.kfp_objects import experiment as the_experiment
from pipelines.platform import read_platform

EXPERIMENT = "updraft"


class Submitted(TypedDict):
    """A run that was started."""

    run_id: str
    url: str
    run_name: str
    experiment: str
    pipeline: str
    version: str


class Scheduled(TypedDict):
    """A schedule, which KFP calls a recurring run."""

    schedule_id: str
    url: str
    name: str
    cron: str | None
    enabled: bool
    max_concurrency: int
    created_at: datetime | None


def submit(
    pipeline: str,
    arguments: Mapping[str, Any],
    settings: Settings,
    *,
    experiment: str = EXPERIMENT,
    run_name: str | None = None,
) -> Submitted:
    """Run a pipeline on Kubeflow, once.

    The pipeline is uploaded if KFP doesn't have it in just this form: its version is named by a hash
    of its text. The experiment is made if it is missing.

    Args:
        pipeline: Its name in the catalogue.
        arguments: Its parameters; those with a default may be left out.
        settings: Where KFP is (endpoint, token, namespace), and the image of the steps.
        experiment: The KFP experiment that the run belongs to.
        run_name: The run's name; by default the campaign's, the pipeline's and the time.

    Raises:
        CampaignError: No such pipeline or parameter, or no endpoint.
        RemoteError: KFP refused, failed or can't be reached.
    """
    compiled = _compiled(pipeline, arguments, settings)
    name = run_name or f"{_subject(arguments)}{pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    with kfp_api(settings) as api:
        place = the_experiment(api, experiment)
        uploaded = version(api, *compiled)
        run = api.call(
            "create the run",
            api.runs.run_service_create_run,
            kfp.V2beta1Run(
                display_name=name,
                experiment_id=place.experiment_id,
                pipeline_version_reference=reference(uploaded),
                runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(arguments)),
            ),
            hint="look whether it started before you submit it again",
        )
        return Submitted(
            run_id=run.run_id,
            url=api.link(f"runs/details/{run.run_id}"),
            run_name=name,
            experiment=experiment,
            pipeline=pipeline,
            version=uploaded.name or uploaded.display_name,
        )


def schedule(
    pipeline: str,
    arguments: Mapping[str, Any],
    cron: str,
    settings: Settings,
    *,
    name: str,
    experiment: str = EXPERIMENT,
    enabled: bool = True,
    max_concurrency: int = 1,
    no_catchup: bool = True,
) -> Scheduled:
    """Run a pipeline again and again; a schedule of the same name in the experiment is replaced.

    Args:
        pipeline: As in :func:`submit`, as are ``arguments``, ``settings`` and ``experiment``.
        cron: Six fields, seconds first.
        name: The schedule's name.
        enabled: Start it now, rather than leave it switched off.
        max_concurrency: Runs at the same time, 1 to 10.
        no_catchup: Don't make up for times that were missed.

    Raises:
        CampaignError: As :func:`submit`, and for a cron that KFP would read otherwise than meant.
        RemoteError: As :func:`submit`.
    """
    cron = checked_cron(cron)
    if not 1 <= max_concurrency <= 10:
        raise CampaignError(f"max_concurrency is {max_concurrency}; KFP takes 1 to 10")
    compiled = _compiled(pipeline, arguments, settings)
    with kfp_api(settings) as api:
        place = the_experiment(api, experiment)
        uploaded = version(api, *compiled)
        older = [s for s in recurring_runs(api, place.experiment_id) if s.display_name == name]
        run = api.call(
            "create the schedule",
            api.recurring_runs.recurring_run_service_create_recurring_run,
            kfp.V2beta1RecurringRun(
                display_name=name,
                description=f"{pipeline}, made by updraft schedule",
                experiment_id=place.experiment_id,
                pipeline_version_reference=reference(uploaded),
                runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(arguments)),
                trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=cron)),
                mode=kfp.RecurringRunMode.ENABLE if enabled else kfp.RecurringRunMode.DISABLE,
                max_concurrency=str(max_concurrency),
                no_catchup=no_catchup,
            ),
            hint="schedule it again: one of the same name is replaced",
        )
        for old in older:  # only now, so that there is always one
            delete_recurring_run(api, old.recurring_run_id)
        return _scheduled(api, run)


def list_schedules(settings: Settings, *, experiment: str | None = None) -> list[Scheduled]:
    """The schedules of an experiment, or all that KFP shows us, by name.

    Raises:
        CampaignError: No endpoint.
        RemoteError: KFP refused, failed or can't be reached.
    """
    with kfp_api(settings) as api:
        return [_scheduled(api, run) for run in _schedules(api, experiment)]


def unschedule(name: str, settings: Settings, *, experiment: str | None = None) -> list[str]:
    """End every schedule of that name (or id), and answer the ids; runs that started go on.

    Raises:
        CampaignError: There is none.
        RemoteError: As :func:`list_schedules`.
    """
    with kfp_api(settings) as api:
        found = _schedules(api, experiment)
        ids = [s.recurring_run_id for s in found if name in (s.display_name, s.recurring_run_id)]
        if not ids:
            known = choices(dict.fromkeys(s.display_name for s in found))
            raise CampaignError(f"schedule {name!r} does not exist; there is {known}")
        for one in ids:
            delete_recurring_run(api, one)
        return ids


def _compiled(pipeline: str, arguments: Mapping[str, Any], settings: Settings) -> tuple[Any, str]:
    """The pipeline's info and text, once it is sure that it takes the arguments."""
    from pipelines.catalog import PIPELINES

    if pipeline not in PIPELINES:
        raise CampaignError(
            f"pipeline {pipeline!r} does not exist; choose from {choices(PIPELINES)}"
        )
    spec = PIPELINES[pipeline].pipeline_spec
    parameters = spec.root.input_definitions.parameters
    for name in arguments:
        if name not in parameters:
            raise CampaignError(
                f"pipeline {pipeline!r} has no parameter {name!r}; it has {choices(sorted(parameters))}"
            )
    for name, parameter in parameters.items():
        if name not in arguments and not parameter.is_optional:
            raise CampaignError(f"pipeline {pipeline!r} needs the parameter {name!r}")
    placed = read_platform(settings.platform) if settings.platform else None
    text = compile_pipeline(PIPELINES[pipeline], image=settings.image, platform=placed)
    return spec.pipeline_info, text


def _subject(arguments: Mapping[str, Any]) -> str:
    """The campaign's name, for the run's."""
    try:
        campaign = yaml.safe_load(str(arguments.get("campaign", "")))
    except yaml.YAMLError:
        return ""
    return f"{campaign['name']} " if isinstance(campaign, dict) and "name" in campaign else ""


def _schedules(api: KfpApi, experiment: str | None) -> list[Any]:
    """Schedules by name; none where the experiment doesn't exist."""
    if experiment is None:
        found = recurring_runs(api)
    else:
        place = find_experiment(api, experiment)
        found = recurring_runs(api, place.experiment_id) if place else []
    return sorted(found, key=lambda run: run.display_name)


def _scheduled(api: KfpApi, run: Any) -> Scheduled:
    cron = run.trigger.cron_schedule if run.trigger else None
    return Scheduled(
        schedule_id=run.recurring_run_id,
        url=api.link(f"recurringrun/details/{run.recurring_run_id}"),
        name=run.display_name,
        cron=cron.cron if cron else None,
        enabled=run.mode == kfp.RecurringRunMode.ENABLE or run.status == "ENABLED",
        max_concurrency=int(run.max_concurrency or 1),
        created_at=run.created_at,
    )
