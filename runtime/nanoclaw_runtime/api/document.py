"""What every route has in common, put into the OpenAPI document: the token, and problems as answers.

FastAPI describes what a route returns; that anything else is a problem document (`problems`), and
when, is said here once.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from nanoclaw_runtime.api.problems import MEDIA_TYPE
from nanoclaw_runtime.api.schemas import TOKEN_HEADER, Problem

Document = dict[str, Any]

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
}
_PROBLEMS: Final = {
    400: "The body is no JSON.",
    401: "The token is missing or wrong.",
    404: "What the request names is not there.",
    409: "What is there stands against it.",
    413: "The body is too large.",
    415: "The body is not declared as what it has to be.",
    422: "A parameter or a field of the body is wrong; `errors` names each.",
    503: "The controller cannot serve this now.",
}
_REFERENCES: Final = "#/components/schemas/{model}"
_REPLACED: Final = ("HTTPValidationError", "ValidationError")
# FastAPI's own words for what is a problem here.


def describe(app: FastAPI) -> None:
    """Have the document of `app` say what its routes share."""
    plain = app.openapi

    def openapi() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: Document) -> Document:
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    schemas = components.setdefault("schemas", {})
    for name in _REPLACED:
        schemas.pop(name, None)
    described = Problem.model_json_schema(by_alias=True, mode="serialization", ref_template=_REFERENCES)
    schemas |= described.pop("$defs", {}) | {"Problem": described}
    for path in document["paths"].values():
        for method, operation in path.items():
            operation["responses"] |= {str(code): _problem(code) for code in _codes(method, operation)}
    return document | {"security": [{scheme: []} for scheme in _SCHEMES]}


def _codes(method: str, operation: Document) -> set[int]:
    """The problems a request of this kind may meet."""
    codes = {401, 503}
    if operation.get("parameters"):
        codes |= {404, 422}
    if "requestBody" in operation:
        codes |= {400, 413, 415, 422}
    if method != "get":
        codes |= {409}
    return codes


def _problem(code: int) -> Document:
    reference = {"$ref": _REFERENCES.format(model="Problem")}
    return {"description": _PROBLEMS[code], "content": {MEDIA_TYPE: {"schema": reference}}}
