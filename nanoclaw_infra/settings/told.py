"""What the controller is told: `runtime` of the stack, with what it has to know of the stack's other parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.claims import Layout, group_claims
from nanoclaw_runtime.contract.config import ControllerConfig, RegistrationStorage

if TYPE_CHECKING:
    from nanoclaw_infra.settings.stack import StackSettings

AGENT_PRIORITY = "agent"
CONTROLLER_PRIORITY = "controller"


def told(settings: StackSettings) -> ControllerConfig:
    """The content of the controller's settings ConfigMap."""
    scheduling = settings.runtime.agent.scheduling
    if settings.priorities.enabled and scheduling.priority_class is None:
        scheduling = scheduling.model_copy(update={"priority_class": priority_class(settings, AGENT_PRIORITY)})
    return settings.runtime.model_copy(
        update={
            "agent": settings.runtime.agent.model_copy(update={"scheduling": scheduling}),
            "scc": settings.openshift.scc,
            "closed_network": _is_closed(settings),
            "gateway": settings.gateway.enabled,
            "registration_storage": _registration_storage(settings),
            "bridge_image": settings.controller.image if settings.runtime.bridged else "",
        }
    )


def _is_closed(settings: StackSettings) -> bool:
    """Whether agents reach so little that they should not try anything else."""
    return settings.network.enabled and not any(peer.is_everywhere for peer in settings.network.agents or ())


def priority_class(settings: StackSettings, role: str) -> str:
    """Name of a PriorityClass of the stack: cluster-wide, so it carries the namespace."""
    return f"{settings.namespace.name}-{role}"


def _registration_storage(settings: StackSettings) -> RegistrationStorage | None:
    """What the claims of groups ask for that the controller makes itself."""
    runtime, storage = settings.runtime, settings.storage
    if not (runtime.registration and runtime.layout is not Layout.SHARED and runtime.pattern.has_claims):
        return None
    purposes = [claim.purpose for claim in group_claims(runtime.layout, names.MAIN_FOLDER)]
    return RegistrationStorage(
        storage_class=storage.storage_class,
        access_modes={purpose: storage.mode(purpose) for purpose in purposes},
        sizes={purpose: storage.size(purpose) for purpose in purposes},
    )
