"""The compiled pipelines: what a person sees of them in KFP, and what runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, dsl

import campaigns
from campaigns.errors import CampaignError, EnvironmentProblem
from campaigns.loading import load_campaign
from campaigns.spec import Campaign
from components.step import IMAGE
from pipelines.compiling import compile_pipeline, compile_pipelines

CAMPAIGN = load_campaign(Path(campaigns.__file__).with_name("game_bonus.yaml"))
MINE = "registry.example.com:5000/team/updraft:1.2.3"


def parsed(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def images(text: str) -> set[str]:
    executors = parsed(text)[0]["deploymentSpec"]["executors"].values()
    return {executor["container"]["image"] for executor in executors if "container" in executor}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ours(campaign: str) -> str:
    return campaign


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def theirs(campaign: str) -> str:
    return f"image: {campaign}"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reads(data: dsl.Input[dsl.Dataset]) -> str:
    return data.uri


@dsl.pipeline(name="small", display_name="Small", description="Three steps and an importer.")
def small(campaign: str, times: int = 1) -> None:
    """Small.

    Args:
        campaign: A campaign.
        times: How often.
    """
    ours(campaign=campaign)
    theirs(campaign=campaign)
    imported = dsl.importer(artifact_uri="file:///data.parquet", artifact_class=dsl.Dataset)
    reads(data=imported.output)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compiled") / "made" / "here"
    return compile_pipelines(folder, image=MINE, campaign=CAMPAIGN)


def test_the_three_pipelines_are_written(written: list[Path]) -> None:
    assert [path.name for path in written] == ["retrain.yaml", "monitor.yaml", "explore.yaml"]
    for path in written:
        assert path.read_text().startswith("# PIPELINE DEFINITION\n# Name: updraft-")
        components.load_component_from_file(str(path))  # as KFP reads it


def test_every_step_runs_in_the_given_image(written: list[Path]) -> None:
    for path in written:
        assert images(path.read_text()) == {MINE}


def test_the_run_form_is_prefilled_and_explained(written: list[Path]) -> None:
    for path in written:
        spec = parsed(path.read_text())[0]
        assert spec["pipelineInfo"]["displayName"].startswith("Updraft: ")
        assert spec["pipelineInfo"]["description"]
        parameters = spec["root"]["inputDefinitions"]["parameters"]
        told = Campaign.model_validate_json(parameters["campaign"]["defaultValue"])
        assert told == CAMPAIGN
        for name, parameter in parameters.items():
            assert parameter.get("description"), f"{path.name}: {name}"
            assert "defaultValue" in parameter, f"{path.name}: {name}"


def test_only_our_image_is_replaced() -> None:
    assert images(compile_pipeline(small, image=MINE)) == {MINE, "python:3.11"}
    assert images(compile_pipeline(small)) == {IMAGE, "python:3.11"}


def test_without_a_campaign_the_form_asks_for_one() -> None:
    parameters = parsed(compile_pipeline(small))[0]["root"]["inputDefinitions"]["parameters"]
    assert "defaultValue" not in parameters["campaign"]
    assert parameters["times"]["defaultValue"] == 1


def test_the_image_changes_nothing_else() -> None:
    plain, changed = (parsed(compile_pipeline(small, image=i)) for i in (None, MINE))
    for executor in changed[0]["deploymentSpec"]["executors"].values():
        if executor.get("container", {}).get("image") == MINE:
            executor["container"]["image"] = IMAGE
    assert changed == plain


def test_the_same_pipeline_compiles_to_the_same_text() -> None:
    assert compile_pipeline(small, image=MINE) == compile_pipeline(small, image=MINE)


def test_settings_of_the_platform_are_kept() -> None:
    from kfp import kubernetes

    @dsl.pipeline(name="placed")
    def placed(campaign: str) -> None:
        kubernetes.add_node_selector(ours(campaign=campaign), "pool", "cpu")

    pipeline, platform = parsed(compile_pipeline(placed, image=MINE))
    assert pipeline["pipelineInfo"]["name"] == "placed"
    assert "kubernetes" in platform["platforms"]


@pytest.mark.parametrize(
    "image", [MINE, "updraft", "ghcr.io/me/updraft@sha256:" + "a" * 64, "me/updraft:V1_2"]
)
def test_image_references_are_taken(image: str) -> None:
    assert image in images(compile_pipeline(small, image=image))


@pytest.mark.parametrize("image", ["", "Updraft latest", "me/updraft:", "a\nb", "https://x/y:1 "])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(CampaignError, match="is no image reference"):
        compile_pipeline(small, image=image)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="can't be written .*--out"):
        compile_pipelines(tmp_path / "file" / "below")
