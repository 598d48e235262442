"""Which headers pass the gateway. Pure.

Nothing by which an agent could show who it is to the model's API, or be shown anything of another's.
"""

from __future__ import annotations

from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from nanoclaw_runtime.gateway.settings import Credential

_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_UP: Final = _HOP_BY_HOP | {
    "accept-encoding",  # usage is read from the answer, so it has to come as it is
    "authorization",
    "content-length",
    "cookie",
    "expect",  # answered here
    "forwarded",
    "host",
    "via",
    "x-api-key",
    "x-real-ip",
}
_NOT_DOWN: Final = _HOP_BY_HOP | {"content-length", "set-cookie"}


def upwards(given: CIMultiDictProxy[str], credential: Credential, length: int | None) -> CIMultiDict[str]:
    """Of an agent's call, with the real key in place of the placeholder; `length` of its body, where that is known."""
    headers = _without(given, _NOT_UP)
    for name in [name for name in headers if name.lower().startswith("x-forwarded-")]:
        headers.popall(name, None)
    headers["Accept-Encoding"] = "identity"
    if length is not None:
        headers["Content-Length"] = str(length)
    name, value = credential.header
    headers[name] = value
    if credential.beta:
        headers["anthropic-beta"] = _with_beta(headers.popall("anthropic-beta", []), credential.beta)
    return headers


def downwards(given: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Of the model's answer."""
    return _without(given, _NOT_DOWN)


def _without(given: CIMultiDictProxy[str], unwanted: frozenset[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for value in given.getall("Connection", []) for name in value.split(",")}
    return CIMultiDict((name, value) for name, value in given.items() if name.lower() not in unwanted | named)


def _with_beta(given: list[str], beta: str) -> str:
    features = [each.strip() for value in given for each in value.split(",") if each.strip()]
    return ",".join([*features, *([] if beta in features else [beta])])
