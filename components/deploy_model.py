"""Serve the champion."""

from kfp import dsl

from components.step import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy_model(campaign: str, version: str) -> str:
    """Put a version behind the decision endpoints (Ray Serve); a running one is swapped in place.

    Args:
        campaign: The campaign, as JSON.
        version: The version in the registry.

    Returns:
        Where it answers.
    """
    from campaigns.spec import Campaign
    from components.step import running
    from models.ray_session import attach
    from serving.deploy import deploy

    with running("deploy_model") as step:
        spec = Campaign.model_validate_json(campaign)
        attach(step.settings)
        url = deploy(step.settings, {spec.name: version})
        step.write("served", url=url)
        step.say(f"version {version} answers at {url}")
        return url
