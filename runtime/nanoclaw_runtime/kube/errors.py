"""What the Kubernetes API can answer, as one tree with the facts as fields.

KubeError
├── NotFound            404
├── AlreadyExists       409 on create: somebody else's object has the name
├── Conflict            409 otherwise: the object is not the one that was meant
├── Unauthorized        401
├── Forbidden           403: RBAC, admission, or a quota (`quota` tells)
├── Invalid             any other 4xx, such as 400 and 422: the request itself is wrong
├── Throttled           429, with `retry_after`
├── Unavailable         5xx, or no connection at all
├── Gone                410: the history a watch or a page asked for is compacted
├── StreamLost          a watch, log or attach stream broke off
├── PodGone             the pod ended or vanished while something was asked of its container
├── DeadlineExceeded    the caller's time is up
└── NotConfigured       no kubeconfig and not in a cluster

Statuses become errors in `error_of` and nowhere else. Messages never contain request bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nanoclaw_runtime.domain.errors import NanoclawError


@dataclass(frozen=True)
class Target:
    """What a request was about; the beginning of every message."""

    verb: str
    resource: str
    """Plural, with the subresource behind a slash: `pods/attach`."""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {place}".rstrip()


class KubeError(NanoclawError):
    """A request the API server, or the way to it, did not serve."""

    def __init__(self, target: Target, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(f"{target}: {message}")
        self.target = target
        self.message = message
        self.status = status
        """HTTP status; 0 when there was no answer."""
        self.reason = reason
        """The API's word, such as `NotFound`."""


class NotFound(KubeError):
    pass


class AlreadyExists(KubeError):
    pass


class Conflict(KubeError):
    pass


class Unauthorized(KubeError):
    pass


class Forbidden(KubeError):
    @property
    def quota(self) -> bool:
        """Refused because a ResourceQuota is used up, which passes by itself."""
        return "exceeded quota" in self.message


class Invalid(KubeError):
    pass


class Throttled(KubeError):
    def __init__(self, target: Target, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(target, message, status=429, reason="TooManyRequests")
        self.retry_after = retry_after
        """Seconds the server asks us to wait; None when it does not say."""


class Unavailable(KubeError):
    pass


class Gone(KubeError):
    pass


class StreamLost(KubeError):
    pass


class PodGone(KubeError):
    pass


class DeadlineExceeded(KubeError):
    pass


class NotConfigured(NanoclawError):
    """There is no cluster to talk to."""


_BY_STATUS: dict[int, type[KubeError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    410: Gone,
}


def error_of(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> KubeError:
    """The error an answer of 400 or above means; `body` is a Status document or plain text."""
    document = status_document(body) or {}
    message = str(document.get("message") or body[:300].decode(errors="replace").strip() or f"HTTP status {status}")
    reason = str(document.get("reason") or "")
    if status == 429:
        return Throttled(target, message, retry_after=_seconds(headers.get("Retry-After"), document))
    if status == 409:
        conflict = AlreadyExists if reason == "AlreadyExists" else Conflict
        return conflict(target, message, status=status, reason=reason)
    kind = _BY_STATUS.get(status, Invalid if status < 500 else Unavailable)
    return kind(target, message, status=status, reason=reason)


def status_document(body: bytes) -> dict[str, Any] | None:
    """The `Status` object of the API server in an answer, or None when it is anything else."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return document if isinstance(document, dict) and document.get("kind") == "Status" else None


def _seconds(header: str | None, document: dict[str, Any]) -> float | None:
    if header and header.strip().isdigit():
        return float(header)
    details = document.get("details") or {}
    seconds = details.get("retryAfterSeconds")
    return float(seconds) if seconds else None
