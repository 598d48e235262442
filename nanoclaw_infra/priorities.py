"""PriorityClasses of the stack's own: a full cluster gives up an agent before it gives up the controller.

Cluster-wide objects, so their names carry the namespace. An agent that is given up for something
more important is a failed session, which is tried again.
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import AGENT_PRIORITY, CONTROLLER_PRIORITY, priority_class
from nanoclaw_runtime.contract import labels


class Priorities(pulumi.ComponentResource):
    """One class for the controller and the gateway, one for agents."""

    classes: list[pulumi.Resource]
    """Pods that name one are refused until it is there."""

    def __init__(self, name: str, settings: StackSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("nanoclaw:priorities:Priorities", name, {}, opts)
        wanted = settings.priorities
        values = {CONTROLLER_PRIORITY: wanted.controller, AGENT_PRIORITY: wanted.agents} if wanted.enabled else {}
        self.classes = [
            kubernetes.scheduling.v1.PriorityClass(
                priority_class(settings, role),
                metadata=kubernetes.meta.v1.ObjectMetaArgs(
                    name=priority_class(settings, role), labels=labels.component(labels.PLATFORM)
                ),
                value=value,
                description=f"NanoClaw in the namespace {settings.namespace.name}: {role}",
                # An agent waits for room: what is running is somebody's conversation, too.
                preemption_policy="Never" if role == AGENT_PRIORITY else "PreemptLowerPriority",
                opts=pulumi.ResourceOptions(parent=self),
            )
            for role, value in values.items()
        ]
        self.register_outputs({})
