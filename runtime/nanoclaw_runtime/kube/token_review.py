"""Whose token it is, as the API server says; never as the token says of itself.

The tokens of pods are bound to them: the answer names the pod, and a token of a pod that is gone is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import Resource

TOKEN_REVIEWS: Final = Resource("TokenReview", "tokenreviews", "/apis/authentication.k8s.io/v1", namespaced=False)

_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class TokenOwner:
    """Who may use a token."""

    username: str
    pod: str
    """Empty when the token belongs to no pod."""
    pod_uid: str


async def review(client: KubeClient, token: str, audience: str) -> TokenOwner | None:
    """Who the token belongs to; None when it is not good, or not for this audience.

    Raises KubeError. Needs `create` on tokenreviews, in the whole cluster.
    """
    target = Target("create", TOKEN_REVIEWS.plural)
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": TOKEN_REVIEWS.kind,
        "spec": {"token": token, "audiences": [audience]},
    }
    status: dict[str, Any] = (await client.request("POST", TOKEN_REVIEWS.path(""), target, body=body))["status"]
    if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
        return None
    user: dict[str, Any] = status.get("user") or {}
    extra: dict[str, list[str]] = user.get("extra") or {}
    return TokenOwner(user.get("username", ""), _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID)))


def _only(values: list[str] | None) -> str:
    return values[0] if values and len(values) == 1 else ""
