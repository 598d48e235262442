"""The namespace of an installation, what it asks of every pod in it, and how much there may be.

On OpenShift the Pod Security labels belong to the platform's own syncer, so none are set there.
"""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.settings.place import ContainerLimits
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import ControllerConfig, Pattern, Platform

_OBJECT = "nanoclaw"
# The ResourceQuota and the LimitRange; there is one of each.

KEPT: Final = {
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""Annotations of protected data: Argo CD and Flux, applying what was rendered, would delete what is no longer in it."""


class Namespace(pulumi.ComponentResource):
    """A namespace of the stack's own, or the name of one that is there already."""

    name: pulumi.Output[str]
    """Everything takes the name from here, so that it waits for the namespace."""
    goes_with_it: pulumi.Resource | None
    """What children may name as `deleted_with`: the namespace, when deleting it is meant to delete them.

    Agent pods hold the claims they mount, and only the namespace takes those pods along.
    """
    bounds: list[pulumi.Resource]
    """Quota and limits, which hold only for what is made behind them."""

    def __init__(self, name: str, settings: StackSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("nanoclaw:namespace:Namespace", name, {}, opts)
        self.goes_with_it = None
        wanted = settings.namespace
        if wanted.create:
            keep = settings.protects("Namespace", wanted.name)
            namespace = kubernetes.core.v1.Namespace(
                wanted.name,
                metadata=kubernetes.meta.v1.ObjectMetaArgs(
                    name=wanted.name, labels=_labels(settings.runtime), annotations=KEPT if keep else None
                ),
                opts=pulumi.ResourceOptions(parent=self, protect=keep, retain_on_delete=keep),
            )
            self.name = namespace.metadata.name
            if not keep:
                self.goes_with_it = namespace
        else:
            self.name = pulumi.Output.from_input(wanted.name)
        options = pulumi.ResourceOptions(parent=self, deleted_with=self.goes_with_it)
        metadata = kubernetes.meta.v1.ObjectMetaArgs(
            name=_OBJECT, namespace=self.name, labels=labels.component(labels.PLATFORM)
        )
        self.bounds = []
        if wanted.quota:
            spec = kubernetes.core.v1.ResourceQuotaSpecArgs(hard=wanted.quota)
            self.bounds.append(kubernetes.core.v1.ResourceQuota(_OBJECT, metadata=metadata, spec=spec, opts=options))
        if wanted.container_limits is not None:
            limits = _limits(wanted.container_limits)
            self.bounds.append(kubernetes.core.v1.LimitRange(_OBJECT, metadata=metadata, spec=limits, opts=options))
        self.register_outputs({"name": self.name})


def pod_security(runtime: ControllerConfig) -> str | None:
    """The Pod Security level of a namespace that runs this; None where the platform sets it."""
    if runtime.platform is Platform.OPENSHIFT:
        return None
    # Folders of a node are forbidden by every level below.
    return "privileged" if runtime.pattern is Pattern.NODELOCAL else "restricted"


def _labels(runtime: ControllerConfig) -> dict[str, str]:
    ours = {labels.NAME: "nanoclaw", labels.PART_OF: "nanoclaw"}
    level = pod_security(runtime)
    if level is None:
        return ours
    return ours | {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}


def _limits(given: ContainerLimits) -> kubernetes.core.v1.LimitRangeSpecArgs:
    default = {"cpu": given.default_cpu, "memory": given.default_memory}
    most = {key: value for key, value in (("cpu", given.max_cpu), ("memory", given.max_memory)) if value is not None}
    return kubernetes.core.v1.LimitRangeSpecArgs(
        limits=[
            kubernetes.core.v1.LimitRangeItemArgs(
                type="Container", default=default, default_request=default, max=most or None
            )
        ]
    )
