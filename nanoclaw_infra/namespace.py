"""The namespace of an installation, and what it asks of every pod in it.

On OpenShift the Pod Security labels belong to the platform's own syncer, so none are set there.
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import Platform

POD_SECURITY = "restricted"


class Namespace(pulumi.ComponentResource):
    """A namespace of the stack's own, or the name of one that is there already."""

    name: pulumi.Output[str]
    """Everything takes the name from here, so that it waits for the namespace."""
    goes_with_it: pulumi.Resource | None
    """What children may name as `deleted_with`: the namespace, when deleting it is meant to delete them.

    Agent pods hold the claims they mount, and only the namespace takes those pods along.
    """

    def __init__(self, name: str, settings: StackSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("nanoclaw:namespace:Namespace", name, {}, opts)
        self.goes_with_it = None
        if settings.namespace.create:
            namespace = kubernetes.core.v1.Namespace(
                settings.namespace.name,
                metadata=kubernetes.meta.v1.ObjectMetaArgs(
                    name=settings.namespace.name, labels=_labels(settings.runtime.platform)
                ),
                opts=pulumi.ResourceOptions(
                    parent=self, protect=settings.protect_data, retain_on_delete=settings.protect_data
                ),
            )
            self.name = namespace.metadata.name
            if not settings.protect_data:
                self.goes_with_it = namespace
        else:
            self.name = pulumi.Output.from_input(settings.namespace.name)
        self.register_outputs({"name": self.name})


def _labels(platform: Platform) -> dict[str, str]:
    ours = {labels.NAME: "nanoclaw", labels.PART_OF: "nanoclaw"}
    if platform is Platform.OPENSHIFT:
        return ours
    return ours | {f"pod-security.kubernetes.io/{mode}": POD_SECURITY for mode in ("enforce", "audit", "warn")}
