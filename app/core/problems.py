"""Every error leaves the service as a problem (RFC 9457), and stands in the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.core import database_errors
from app.core.errors import (
    TYPE_BASE,
    Invalid,
    Problem,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from app.core.field_errors import pointers_of

MEDIA_TYPE = "application/problem+json"
SCHEMA_REF = "#/components/schemas/Problem"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ProblemPointer(BaseModel):
    """One field at fault: in the body by JSON pointer, elsewhere by the parameter's name."""

    pointer: str | None = Field(default=None, examples=["#/targets/pair_ids/0"])
    parameter: str | None = Field(default=None, examples=["limit"])
    line: int | None = Field(default=None, description="Line of a manifest, counted from 1.")
    detail: str


class ProblemDocument(BaseModel):
    """A problem object; problems of some types carry further members."""

    model_config = ConfigDict(extra="allow")

    # The member's name is the RFC's.
    type_: str = Field(alias="type", examples=[TYPE_BASE + "invalid"])
    title: str
    status: int
    detail: str
    errors: list[ProblemPointer] = []


class _Plain(Problem):
    """A status that the framework answers by itself, such as 405."""

    slug, title = "http", "The request cannot be served"


class MethodNotAllowed(Problem):
    """The resource exists but not with this method."""

    status, slug, title = 405, "method-not-allowed", "The method is not allowed here"


class MalformedRequest(Problem):
    """The request is not well-formed HTTP or JSON."""

    status, slug, title = 400, "malformed", "The request is malformed"


class RouteNotFound(Problem):
    """No resource has this path."""

    status, slug, title = 404, "not-found", "Not found"


class BodyRefused(HTTPException):
    """Carries a problem out of the reading of a body, where FastAPI makes all else a plain 400."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.status, problem.detail)
        self.problem = problem


_BY_STATUS: dict[int, type[Problem]] = {
    400: MalformedRequest,
    404: RouteNotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    415: UnsupportedMediaType,
    422: Invalid,
}


def problems(*errors: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` of a route that may answer with these errors.

    Errors of one status share an entry that names each of them.
    """
    by_status: dict[int | str, list[type[Problem]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: _response(found) for status, found in by_status.items()}


def problem_response(problem: Problem, *, status: int | None = None) -> JSONResponse:
    """Return ``problem`` as a response."""
    body = problem.body()
    if status is not None:
        body["status"] = status
    return JSONResponse(body, body["status"], problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error as a problem, in its OpenAPI document too."""
    # A redirect names the host and the scheme that a proxy in front may have changed, and is none.
    app.router.redirect_slashes = False
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for expected in database_errors.EXPECTED:
        app.add_exception_handler(expected, _on_database_error)


def internal_error(request_id: str) -> JSONResponse:
    """Return the answer to an error that nobody expected; the log has the rest."""
    problem = Problem(
        "The service failed at this request and changed nothing. Try again; if it fails again, "
        "give the request id to the operator.",
        extra={"request_id": request_id},
    )
    return problem_response(problem)


def _response(errors: list[type[Problem]]) -> dict[str, Any]:
    sentences = [f"{error.title} (`{error.slug}`)." for error in dict.fromkeys(errors)]
    return {
        "description": " ".join(dict.fromkeys(sentences)),
        "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA_REF}}},
    }


async def _on_problem(_: Request, error: Exception) -> JSONResponse:
    return problem_response(error) if isinstance(error, Problem) else internal_error("")


async def _on_database_error(_: Request, error: Exception) -> JSONResponse:
    return problem_response(database_errors.problem_of(error))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    field = getattr(request.scope.get("route"), "body_field", None)
    body = Any if field is None else field.field_info.annotation
    count = f"{len(found)} field{'s' if len(found) != 1 else ''}"
    detail = f"{count} of the request cannot be accepted; 'errors' says which and why."
    return problem_response(Invalid(detail, pointers=pointers_of(found, body)))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, BodyRefused):
        return problem_response(error.problem)
    if type(error) is HTTPException and error.status_code in (404, 405):
        return problem_response(_unrouted(request))
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    headers: Mapping[str, str] | None = getattr(error, "headers", None)
    kind = _BY_STATUS.get(status, _Plain)
    return problem_response(kind(f"{detail.rstrip('.')}.", headers=headers), status=status)


def _unrouted(request: Request) -> Problem:
    """Return the answer where no route has this path, or none of those that have it the method."""
    allowed = _allowed(request)
    if not allowed:
        trailing = request.url.path.rstrip("/") and request.url.path.endswith("/")
        slash = " Leave the slash at its end away." if trailing else ""
        return RouteNotFound(
            f"There is nothing at this path.{slash} GET /openapi.json describes all that there is."
        )
    listed = ", ".join(allowed)
    return MethodNotAllowed(
        f"Expected one of {listed} at this path; {request.method[:20]} came.",
        headers={"Allow": listed},
    )


def _allowed(request: Request) -> Sequence[str]:
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


class OpenApi:
    """Makes the OpenAPI document: FastAPI's own, with the errors that every route can answer."""

    everywhere: ClassVar[dict[int | str, dict[str, Any]]] = {
        500: _response([Problem]),
        503: _response([Unavailable]),
    }

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._make = app.openapi

    def __call__(self) -> dict[str, Any]:
        """Return the document; it is made once."""
        if self._app.openapi_schema is None:
            document = self._make()
            self._complete(document)
            self._app.openapi_schema = document
        return self._app.openapi_schema

    def _complete(self, document: dict[str, Any]) -> None:
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = ProblemDocument.model_json_schema(ref_template=SCHEMA_REF + "{model}")
        definitions = schemas["Problem"].pop("$defs", {})
        schemas.update({f"Problem{name}": body for name, body in definitions.items()})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                self._complete_operation(operation)

    def _complete_operation(self, operation: dict[str, Any]) -> None:
        responses = operation["responses"]
        known = dict(self.everywhere)
        if operation.get("security"):
            known |= _SECURED
        if "requestBody" in operation:
            refusals: tuple[type[Problem], ...] = (MalformedRequest, TooLarge, UnsupportedMediaType)
            known |= problems(*refusals)
        if "422" in responses and MEDIA_TYPE not in responses["422"].get("content", {}):
            responses.pop("422")
            known |= {422: _response([Invalid])}
        for status, response in known.items():
            responses.setdefault(str(status), response)


def _secured() -> dict[int | str, dict[str, Any]]:
    from app.core.errors import Forbidden, Unauthorized

    return problems(Unauthorized, Forbidden)


_SECURED = _secured()
