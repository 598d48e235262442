"""Where the installation is: its namespace and the token of its API, from options, environment or cluster."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.errors import Forbidden, KubeError, NotFound
from nanoclaw_runtime.kube.resources import DEPLOYMENTS, Resource

if TYPE_CHECKING:
    from nanoclaw_runtime.kube.client import KubeClient, Manifest

SECRETS: Final = Resource("Secret", "secrets")
DAEMON_SETS: Final = Resource("DaemonSet", "daemonsets", "/apis/apps/v1")
"""The controller's, with the pattern `nodelocal`."""
_ANYWHERE: Final = tuple(replace(kind, namespaced=False) for kind in (DEPLOYMENTS, DAEMON_SETS))
# Listed without a namespace: those of every namespace.

DEFAULT_NAMESPACE: Final = "nanoclaw"


@dataclass(frozen=True)
class Target:
    """Which cluster, and whose installation in it; None where it is to be found out. With `url` it is no cluster."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    token: str | None = None
    url: str | None = None
    """Address of a controller's API, such as that of `nanoclaw host`."""
    token_file: Path | None = None
    """Where the token of that API is, unless `token` is given."""


async def find_namespace(client: KubeClient) -> str:
    """The namespace of the only controller we may see, or `nanoclaw` when we may not look everywhere.

    Raises CommandFailed when there are several.
    """
    return only_namespace(await namespaces(client))


async def namespaces(client: KubeClient) -> set[str]:
    """Where there are controllers, as far as we may look."""
    found: set[str] = set()
    for kind in _ANYWHERE:
        with contextlib.suppress(Forbidden):
            controllers = await client.list(kind, labels=labels.CONTROLLER_SELECTOR)
            found |= {controller["metadata"]["namespace"] for controller in controllers}
    return found


async def find_controller(client: KubeClient, namespace: str) -> Manifest:
    """Its Deployment or its DaemonSet. Raises NotFound, for the Deployment, when there is neither."""
    try:
        return await client.get(DEPLOYMENTS, names.CONTROLLER, namespace=namespace)
    except NotFound:
        with contextlib.suppress(NotFound):
            return await client.get(DAEMON_SETS, names.CONTROLLER, namespace=namespace)
        raise


def only_namespace(found: set[str]) -> str:
    if len(found) > 1:
        raise CommandFailed(f"there are installations in {', '.join(sorted(found))}; name one with --namespace")
    return next(iter(found), DEFAULT_NAMESPACE)


async def find_token(client: KubeClient, namespace: str) -> str:
    """The API's token from its Secret. Raises CommandFailed when there is none, or we may not read it."""
    try:
        secret = await client.get(SECRETS, names.API_TOKEN, namespace=namespace)
    except NotFound as error:
        raise CommandFailed(
            f"there is no Secret {names.API_TOKEN} in namespace {namespace!r}; "
            "name the installation's namespace with --namespace, or make one with `pulumi up`"
        ) from error
    except Forbidden as error:
        raise CommandFailed(
            f"you may not read the Secret {names.API_TOKEN} in namespace {namespace!r}; "
            "ask for the token and set NANOCLAW_TOKEN"
        ) from error
    except KubeError as error:
        raise CommandFailed(f"the API's token cannot be read: {error}") from error
    return token_of(secret.get("data") or {})


def token_of(data: Mapping[str, str]) -> str:
    """The token in the data of the Secret."""
    try:
        token = base64.b64decode(data.get(names.API_TOKEN_KEY, ""), validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        token = ""
    if not token:
        raise CommandFailed(
            f"the Secret {names.API_TOKEN} has no token under {names.API_TOKEN_KEY!r}; run `pulumi up` again"
        )
    return token
