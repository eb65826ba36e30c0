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

    with running("deploy_model") as step:
        spec = Campaign.model_validate_json(campaign)
        if step.settings.rayservice:
            from components.kube_api import kube_api
            from components.rayservice import serve_version

            with kube_api() as api:
                url = serve_version(api, step.settings.rayservice, spec.name, version, say=step.say)
        else:
            from models.ray_session import attach
            from serving.deploy import deploy

            attach(step.settings)
            url = deploy(step.settings, {spec.name: version})
        step.write("served", url=url)
        step.say(f"version {version} answers at {url}")
        return url
