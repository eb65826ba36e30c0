"""The HTTP application: routes, and every error as an answer that says what is wrong.

Only reading is open; whatever changes state needs the bearer token (:mod:`serving.guard`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from campaigns.errors import CampaignError, UpdraftError
from serving.answers import Ascii, refusal, validation_problems
from serving.guard import Guard
from serving.inputs import Refused
from serving.records import OutcomeRecord
from serving.schemas import (
    DecisionAnswer,
    DecisionRequest,
    DecisionsAnswer,
    FieldProblem,
    OutcomesAnswer,
    OutcomesRequest,
    Refusal,
    RollbackAnswer,
)
from serving.service import Service
from serving.status import CampaignStatus, Health, Monitor, describe, health
from serving.transaction import RequestConflict

log = logging.getLogger(__name__)

RETRY_SECONDS = "1"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (401, 404, 409, 413, 422, 503)
}
# For /docs; the guard has refused whoever lacks the token before a route is reached.
Token = Annotated[Any, Security(HTTPBearer(auto_error=False, description="The service's token."))]


def create_app(service: Service) -> FastAPI:
    """The application over a service."""
    app = FastAPI(
        title="Updraft",
        description="Whom to treat, with what, inside a budget.",
        default_response_class=Ascii,
        responses=ERRORS,
    )
    monitor = Monitor(service, f"{platform.node()}-{os.getpid()}")
    app.add_middleware(Guard, token=service.token, observe=monitor.observe)
    _add_errors(app)
    _add_changes(app, service)
    _add_views(app, service, monitor)
    return app


def _add_changes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/campaigns/{name}/decisions", tags=["decide"])
    async def decisions(name: str, request: DecisionRequest, _: Token) -> DecisionsAnswer:
        """Decide on one unit or many. Every decision is on disk before it is answered."""
        made = await asyncio.wrap_future(service.decide(name, request))
        return DecisionsAnswer(campaign=name, decisions=[DecisionAnswer.of(one) for one in made])

    @app.post("/v1/outcomes", tags=["learn"], responses={207: {"model": OutcomesAnswer}})
    def outcomes(request: OutcomesRequest, _: Token, response: Response) -> OutcomesAnswer:
        """Report what was observed: late, repeated and in any order. 207 where some were refused."""
        report = service.record_outcomes([OutcomeRecord(**dict(item)) for item in request.outcomes])
        problems = [
            FieldProblem(field=f"outcomes.{one.index}.{one.field}", message=one.message)
            for one in report.problems
        ]
        if problems and not report.stored:
            raise Refused(422, "no outcome was stored", problems)
        response.status_code = 207 if problems else 200
        return OutcomesAnswer(stored=report.stored, repeated=report.repeated, problems=problems)

    @app.post("/v1/campaigns/{name}/rollback", tags=["operate"])
    def rollback(name: str, _: Token) -> RollbackAnswer:
        """Serve the version before, on every replica."""
        return RollbackAnswer(campaign=name, model_version=service.roll_back(name))


def _add_views(app: FastAPI, service: Service, monitor: Monitor) -> None:
    @app.get("/v1/campaigns", tags=["operate"])
    def campaigns() -> dict[str, str]:
        """The campaigns served here, with their versions."""
        return {name: service.find(name).version for name in service.campaigns}

    @app.get("/v1/campaigns/{name}", tags=["operate"])
    def campaign(name: str) -> CampaignStatus:
        """Version, price, exploration and spending of a campaign."""
        return describe(service, name)

    @app.get("/healthz", tags=["operate"])
    def healthz(response: Response) -> Health:
        """200 where decisions can be made and recorded, else 503."""
        found = health(service)
        response.status_code = 200 if found.status == "ok" else 503
        return found

    @app.get("/metrics", tags=["operate"], response_class=Response)
    def metrics() -> Response:
        """For Prometheus."""
        return Response(monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _later(refusal(error.status, str(error), error.problems))

    @app.exception_handler(RequestConflict)
    async def conflict(_: Request, error: RequestConflict) -> Response:
        return refusal(409, str(error), [FieldProblem(field="request_id", message=str(error))])

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return refusal(
            422, "the request is not as it should be", validation_problems(error.errors())
        )

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        answer = refusal(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(CampaignError)
    async def usage(_: Request, error: CampaignError) -> Response:
        return refusal(409, str(error))

    @app.exception_handler(UpdraftError)
    async def unable(_: Request, error: UpdraftError) -> Response:
        log.error("%s", error)
        return _later(refusal(503, str(error)))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        log.error("unexpected", exc_info=error)
        return refusal(500, "a fault of ours; the log has the details")


def _later(answer: Ascii) -> Ascii:
    if answer.status_code == 503:
        answer.headers["Retry-After"] = RETRY_SECONDS
    return answer
