"""What the models of the stack's settings have in common: strictness, and the kinds of text they hold."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from nanoclaw_runtime.contract.config import ContractModel, Resources, Scheduling
from nanoclaw_runtime.contract.quantities import Quantity

_NAME: Final = r"([a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+|[a-z0-9._-]+)"
_TAG, _DIGEST = r":[\w][\w.-]{0,127}", r"@sha256:[0-9a-f]{64}"
_REFERENCE: Final = re.compile(rf"{_NAME}(?P<tag>{_TAG})?(?P<digest>{_DIGEST})?")
IMAGE_PATTERN: Final = rf"^{_NAME}({_TAG}|{_DIGEST})$"
"""An image reference with a tag or a digest, exactly one."""

OWN_KEYS: Final = {
    ("runtime", "platform"): "nanoclaw:platform",
    ("runtime", "layout"): "nanoclaw:layout",
    ("protectData",): "nanoclaw:protectData",
}
"""What has a key of its own in a stack file; everything else is below `nanoclaw:settings`."""

FILLED_IN: Final = {
    "registrationStorage": "nanoclaw:settings.storage",
    "bridgeImage": "nanoclaw:settings.controller.image",
    "scc": "nanoclaw:settings.openshift.scc",
    "closedNetwork": "nanoclaw:settings.network",
    "gateway": "nanoclaw:settings.gateway",
}
"""What the controller is told of other parts of the settings; in `runtime` nobody writes it."""


class Settings(ContractModel):
    """A part of a stack's settings: camelCase in the file, frozen, and nothing that is not known."""


def valid_image(reference: str) -> str:
    """`reference`, when it names an image and one version of it. Raises ValueError."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError(f"{reference!r} is no image reference; write one like 'registry.example/nanoclaw/agent:1.2'")
    if bool(match["tag"]) == bool(match["digest"]):
        raise ValueError(f"{reference!r} needs a tag or a digest, exactly one of them; write ':1.2' or '@sha256:…'")
    return reference


Image = Annotated[str, AfterValidator(valid_image), Field(json_schema_extra={"pattern": IMAGE_PATTERN})]
"""An image reference with a tag or a digest, exactly one: with none the node decides, with both one of them lies."""


class Workload(Settings):
    """A Deployment of ours: its image is the controller's."""

    resources: Resources
    scheduling: Scheduling = Scheduling()
    """Nodes, tolerations, priority and pull secrets of the pod."""


class ControllerResources(Resources):
    """Requests and limits of the controller: one Python process that waits most of the time."""

    cpu_request: Quantity = "100m"
    memory_request: Quantity = "192Mi"
    cpu_limit: Quantity = "1"
    memory_limit: Quantity = "512Mi"


class ControllerSettings(Workload):
    """The controller's own container."""

    image: Image
    """Reference of the runtime's image: the controller, and the model gateway."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node asks the registry again."""
    resources: ControllerResources = ControllerResources()
