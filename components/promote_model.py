"""The challenger becomes champion; the champion is kept as previous."""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote_model(campaign: str, verdict: dsl.Input[dsl.Artifact]) -> str:
    """Move the registry's alias ``champion`` to the challenger, and keep the old one as ``previous``.

    Args:
        campaign: The campaign, as JSON.
        verdict: What compare_with_champion said (JSON), with the challenger's version.

    Returns:
        The champion's version.
    """
    import json
    from pathlib import Path

    from campaigns.spec import Campaign
    from components.step import running
    from models.registry import Registry

    with running("promote_model") as step:
        spec = Campaign.model_validate_json(campaign)
        version = str(json.loads(Path(verdict.path).read_text())["version"])
        Registry(step.settings).promote(spec.name, version)
        step.say(f"version {version} is champion of {spec.name}")
        return version
