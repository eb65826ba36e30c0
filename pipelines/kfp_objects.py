"""What a run on Kubeflow needs: its experiment, its pipeline and the pipeline's version."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import kfp_server_api as kfp

from pipelines.kfp_api import Exists, KfpApi, Missing


def experiment(api: KfpApi, name: str) -> Any:
    """The experiment of that name, made if it is missing."""
    service = api.experiments
    body = kfp.V2beta1Experiment(display_name=name, namespace=api.namespace or None)
    return _found_or_made(
        lambda: find_experiment(api, name),
        lambda: api.call(
            f"make the experiment {name!r}",
            service.experiment_service_create_experiment,
            body,
            safe=True,
        ),
    )


def find_experiment(api: KfpApi, name: str) -> Any | None:
    """The experiment of that name, if there is one."""
    found = api.every(
        f"look for the experiment {name!r}",
        api.experiments.experiment_service_list_experiments,
        "experiments",
        filter=_equals("display_name", name),
        namespace=api.namespace,
    )
    return found[0] if found else None


def version(api: KfpApi, info: Any, text: str) -> Any:
    """The version with this very text, uploaded if it is missing, with its pipeline.

    A hash names the version, so that the same text is uploaded once, whoever asks and how often.

    Args:
        api: Where.
        info: The pipeline's name, display_name and description (``pipeline_spec.pipeline_info``).
        text: The pipeline as YAML.
    """
    pipeline = _pipeline(api, info)
    name = f"{info.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return _found_or_made(
        lambda: _find_version(api, pipeline.pipeline_id, name),
        lambda: _upload(api, pipeline.pipeline_id, name, text, info.description),
    )


def reference(version: Any) -> kfp.V2beta1PipelineVersionReference:
    """How a run refers to a version."""
    return kfp.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
    )


def recurring_runs(api: KfpApi, experiment_id: str | None = None) -> list[Any]:
    """The schedules of an experiment, or of the namespace."""
    where = {"experiment_id": experiment_id} if experiment_id else {"namespace": api.namespace}
    return api.every(
        "list the schedules",
        api.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        **where,
    )


def delete_recurring_run(api: KfpApi, recurring_run_id: str) -> None:
    """End a schedule; it is well if somebody else just did."""
    with suppress(Missing):
        api.call(
            "end the schedule",
            api.recurring_runs.recurring_run_service_delete_recurring_run,
            recurring_run_id,
            safe=True,
        )


def _pipeline(api: KfpApi, info: Any) -> Any:
    name = info.name
    body = kfp.V2beta1Pipeline(
        name=name,
        display_name=info.display_name or name,
        description=info.description,
        namespace=api.namespace or None,
    )

    def find() -> Any | None:
        found = api.every(
            f"look for the pipeline {name!r}",
            api.pipelines.pipeline_service_list_pipelines,
            "pipelines",
            filter=_equals("name", name),
            namespace=api.namespace,
        )
        return found[0] if found else None

    return _found_or_made(
        find,
        lambda: api.call(
            f"make the pipeline {name!r}",
            api.pipelines.pipeline_service_create_pipeline,
            body,
            safe=True,
        ),
    )


def _find_version(api: KfpApi, pipeline_id: str, name: str) -> Any | None:
    found = api.every(
        f"look for the version {name!r}",
        api.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
        filter=_equals("name", name),
    )
    return found[0] if found else None


def _upload(api: KfpApi, pipeline_id: str, name: str, text: str, description: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"  # KFP goes by the ending
        file.write_text(text, encoding="utf-8")
        return api.call(
            f"upload the version {name!r}",
            api.uploads.upload_pipeline_version,
            str(file),
            name=name,
            pipelineid=pipeline_id,
            description=description,
            safe=True,
        )


def _found_or_made(find: Callable[[], Any | None], make: Callable[[], Any]) -> Any:
    """What is there, else what is made; asked twice, or by two at a time, it is made once."""
    found = find()
    if found is not None:
        return found
    try:
        return make()
    except Exists:
        found = find()
        if found is None:
            raise
        return found


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})
