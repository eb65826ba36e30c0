"""The pipelines as KFP YAML, to upload, to review or to submit."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from campaigns.errors import CampaignError, EnvironmentProblem
from campaigns.spec import Campaign
from pipelines.platform import Platform, place

# An image reference: host:port/team/name, then :tag, @sha256:digest, or both.
_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)


def compile_pipelines(
    folder: Path,
    *,
    image: str | None = None,
    campaign: Campaign | None = None,
    platform: Platform | None = None,
) -> list[Path]:
    """Write every pipeline of the catalogue as ``<name>.yaml``.

    Args:
        folder: Where to; made if it is missing, older files are replaced.
        image: The container image of every step, in place of the built-in one.
        campaign: Prefills the run form of the KFP UI; without it the form asks for one.
        platform: What the cluster gives the steps.

    Returns:
        The files, in the catalogue's order.

    Raises:
        CampaignError: The image is no image reference, or the platform speaks of an unknown step.
        EnvironmentProblem: The folder can't be written.
    """
    from pipelines.catalog import PIPELINES

    texts = {
        name: compile_pipeline(pipeline, image=image, campaign=campaign, platform=platform)
        for name, pipeline in PIPELINES.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"{error.filename or folder}: can't be written ({error.strerror}); "
            "give a folder that you may write, with --out"
        ) from error
    return [folder / f"{name}.yaml" for name in texts]


def compile_pipeline(
    pipeline: Any,
    *,
    image: str | None = None,
    campaign: Campaign | None = None,
    platform: Platform | None = None,
) -> str:
    """One pipeline's YAML: a comment that lists its inputs, the pipeline, and its platform's part."""
    from kfp import compiler

    from components.step import IMAGE

    prefilled = {} if campaign is None else {"campaign": campaign.model_dump_json()}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file), pipeline_parameters=prefilled)
        text = file.read_text(encoding="utf-8")
    if image is None and platform is None:
        return text
    documents = list(yaml.safe_load_all(text))
    if platform is not None:
        documents = place(documents, platform, IMAGE)
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        if "container" in executor:
            used = executor["container"]["image"]
            executor["container"]["image"] = _checked(
                (image if image is not None else IMAGE) if used == IMAGE else used
            )
    comments = "".join(re.findall(r"\A(?:#.*\n)+", text))
    body: str = yaml.safe_dump_all(documents, sort_keys=True)
    return comments + body


def _checked(image: str) -> str:
    if not _IMAGE.fullmatch(image):
        raise CampaignError(
            f"image {image!r}: is no image reference; write one such as "
            "ghcr.io/me/updraft:0.1.0 (--image or UPDRAFT_IMAGE)"
        )
    return image
