"""Everything that can go wrong with a request becomes one kind of answer here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from nanoclaw_runtime.api.schemas import FieldProblem, Problem
from nanoclaw_runtime.domain.errors import (
    FilesAway,
    GroupBusy,
    GroupUnknown,
    NanoclawError,
    RegistrationRefused,
    SessionUnknown,
    SettingsInvalid,
    StoreFailed,
    TaskInvalid,
    TaskUnknown,
    TransferRefused,
)

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_STATUS: Final[dict[type[NanoclawError], int]] = {
    GroupUnknown: 404,
    SessionUnknown: 404,
    TaskUnknown: 404,
    TaskInvalid: 422,
    RegistrationRefused: 409,
    TransferRefused: 422,
    FilesAway: 503,
    GroupBusy: 409,
    StoreFailed: 503,
    SettingsInvalid: 503,
}

_DETAILS: Final = {
    404: "there is nothing at this address; GET /v1/groups lists the groups",
    405: "this address does not take that method; the Allow header names those it takes",
}

_REMEDIES: Final = {
    "missing": "send it",
    "extra_forbidden": "leave it out, or correct its name",
    "string_type": "send a string",
    "string_too_long": "shorten it",
    "json_invalid": "send one JSON object in UTF-8",
    "model_attributes_type": "send one JSON object",
    "value_error": "send something that can be read",
    "int_parsing": "send a whole number",
    "int_parsing_size": "send a smaller number",
    "greater_than_equal": "send a larger number",
    "less_than_equal": "send a smaller number",
}


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as an answer."""
    title = HTTPStatus(status).phrase
    document = Problem(title=title, status=status, detail=detail, errors=list(errors) if errors else None)
    return Response(
        document.model_dump_json(by_alias=True, exclude_none=True),
        status_code=status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(NanoclawError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _known(_request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if status >= 500:
        _log.error("request not served", status=status, reason=str(error))
    return problem(status, str(error))


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_field_problem(one) for one in error.errors()]
    malformed = any(one["type"] == "json_invalid" for one in error.errors())
    detail = "; ".join(f"{one.field}: {one.problem}" for one in found)
    return problem(400 if malformed else 422, detail, errors=found)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        detail = _DETAILS.get(error.status_code, detail)
    return problem(error.status_code, detail, headers=error.headers)


async def _unexpected(_request: Request, error: Exception) -> Response:
    del error  # the server logs it with its traceback
    return problem(500, "the controller failed while serving this; its log has the reason")


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    kind, place = error["type"], [str(part) for part in error["loc"]]
    if kind == "json_invalid":
        return FieldProblem(
            field="body", problem=f"is no JSON ({error['ctx']['error']})", remedy=_REMEDIES["json_invalid"]
        )
    field = ".".join(place[1:]) or place[0]
    text = str(error["ctx"]["error"]) if kind == "value_error" else _uncapitalised(str(error["msg"]))
    return FieldProblem(field=field, problem=text, remedy=_REMEDIES.get(kind, "correct it and send it again"))


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
