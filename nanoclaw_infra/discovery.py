"""Which custom resources the cluster serves, asked before the first resource is declared.

Without the question a missing operator shows in the middle of an `up`, as an error about a kind
nobody recognises. A cluster that cannot be asked is no refusal: a stack can be rendered anywhere,
and who applies it there hears of the cluster soon enough. Not here: objects of these kinds.

External Secrets serves `v1` since 0.16 and `v1beta1` until 0.17, so the newest that is served is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pulumi

from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.place import ClusterSettings
from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings

ANSWER: Final = 10
"""Seconds for one question."""


@dataclass(frozen=True)
class CustomKind:
    """A kind that an operator brings."""

    kind: str
    group: str
    versions: tuple[str, ...]
    """That we can write, best first."""
    operator: str

    @property
    def api_versions(self) -> tuple[str, ...]:
        return tuple(f"{self.group}/{version}" for version in self.versions)


SERVICE_MONITORS: Final = CustomKind("ServiceMonitor", "monitoring.coreos.com", ("v1",), "the Prometheus operator")
PROMETHEUS_RULES: Final = CustomKind("PrometheusRule", "monitoring.coreos.com", ("v1",), "the Prometheus operator")
EXTERNAL_SECRETS: Final = CustomKind(
    "ExternalSecret", "external-secrets.io", ("v1", "v1beta1"), "the External Secrets operator"
)


@dataclass(frozen=True)
class Served:
    """What was found out. Empty when the cluster was not, or need not be, asked."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Kind → the version to write."""

    def api_version(self, kind: CustomKind) -> str:
        """With its group; our preferred one where nothing is known."""
        return f"{kind.group}/{self.versions.get(kind.kind, kind.versions[0])}"


def custom_resources(stack: Stack) -> Served:
    """How the stack's custom resources are to be written. Raises StackRefused when the cluster lacks one."""
    wanted = list(_wanted(stack.settings))
    if not wanted:
        return Served()
    found = _found([kind for kind, _ in wanted], stack.settings.cluster)
    if found is None:
        return Served()
    if problems := [sentence for kind, sentence in wanted if kind.kind not in found]:
        raise StackRefused(stack.name, problems)
    return Served(found)


def _wanted(settings: StackSettings) -> Iterator[tuple[CustomKind, str]]:
    """Each kind the stack asks for, with the sentence that tells that there is none."""
    if settings.monitoring.enabled:
        for kind in (SERVICE_MONITORS, PROMETHEUS_RULES):
            missing = f"the cluster has no {kind.kind} ({kind.api_versions[0]}); install {kind.operator}"
            yield kind, f"nanoclaw:settings.monitoring.enabled is true, and {missing}, or set it to false"
    if settings.credentials.external is not None:
        kind = EXTERNAL_SECRETS
        missing = f"the cluster has no {kind.kind} ({' or '.join(kind.api_versions)}); install {kind.operator}"
        remedy = "or name a Secret in nanoclaw:settings.credentials.existingSecret instead"
        yield kind, f"nanoclaw:settings.credentials.external is set, and {missing}, {remedy}"


def _found(kinds: Sequence[CustomKind], cluster: ClusterSettings) -> dict[str, str] | None:
    """The best version of each kind the cluster has; None, and a warning, when it does not say."""
    # Only here: most stacks want no custom resource, and the client takes a second to load.
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    from kubernetes import client, config  # noqa: PLC0415

    kubeconfig = str(Path(cluster.kubeconfig).expanduser())
    try:
        with config.new_client_from_config(kubeconfig, cluster.context) as api:  # type: ignore[no-untyped-call]
            api.configuration.retries = False
            return _versions(kinds, client.CustomObjectsApi(api))
    except (client.ApiException, config.ConfigException, HTTPError, OSError) as error:
        names = " and ".join(kind.kind for kind in kinds)
        reason = " ".join(str(error).split())[:200]
        pulumi.log.warn(f"whether the cluster has {names} was not checked, because it did not answer: {reason}")
        return None


def _versions(kinds: Sequence[CustomKind], api: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in kinds:
        served = (version for version in kind.versions if kind.kind in _served(api, kind.group, version))
        if (version := next(served, None)) is not None:
            found[kind.kind] = version
    return found


def _served(api: Any, group: str, version: str) -> set[str]:
    """The kinds of one version of a group; none when the cluster does not know it."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    try:
        listed = api.get_api_resources(group, version, _request_timeout=ANSWER)
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return set()
        raise
    return {resource.kind for resource in listed.resources}
