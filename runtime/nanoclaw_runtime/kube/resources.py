"""Which kinds we talk about, where the API keeps them, and the few fields we read of each.

The slim structures are decoded on the watch path, where a generated model costs seventy times as
much; whatever is not named here is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec


@dataclass(frozen=True)
class Resource:
    """A kind and the address of its collection."""

    kind: str
    plural: str
    api: str = "/api/v1"
    """`/api/v1`, or `/apis/<group>/<version>`."""
    namespaced: bool = True

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, an object, or a part of it."""
        place = f"/namespaces/{namespace}" if self.namespaced else ""
        parts = [f"{self.api}{place}/{self.plural}", name, subresource]
        return "/".join(part for part in parts if part)


PODS: Final = Resource("Pod", "pods")
JOBS: Final = Resource("Job", "jobs", "/apis/batch/v1")
EVENTS: Final = Resource("Event", "events")
CLAIMS: Final = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
DEPLOYMENTS: Final = Resource("Deployment", "deployments", "/apis/apps/v1")
CONFIG_MAPS: Final = Resource("ConfigMap", "configmaps")


class Slim(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of everything decoded from the API: camelCase outside, unknown fields skipped."""


class Metadata(Slim, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    def label(self, key: str) -> str:
        """The label's value, or an empty string."""
        return (self.labels or {}).get(key, "")


class Object(Slim, frozen=True):
    """What every kind has; enough for a watch that only counts."""

    metadata: Metadata = Metadata()


class Condition(Slim, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Waiting(Slim, frozen=True):
    reason: str = ""
    message: str = ""


class Running(Slim, frozen=True):
    pass


class Terminated(Slim, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(Slim, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Slim, frozen=True):
    name: str = ""
    state: ContainerState = ContainerState()
    image: str = ""


class PodStatus(Slim, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] | None = ()
    container_statuses: tuple[ContainerStatus, ...] | None = ()


class PodSpec(Slim, frozen=True):
    node_name: str = ""


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def container(self, name: str) -> ContainerState:
        """The state of one container; empty while the kubelet has not seen it."""
        for status in self.status.container_statuses or ():
            if status.name == name:
                return status.state
        return ContainerState()

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.status.conditions or () if condition.type == kind), None)

    @property
    def finished(self) -> bool:
        """None of its containers runs, or ever will."""
        return self.status.phase in {"Succeeded", "Failed"}


class JobStatus(Slim, frozen=True):
    conditions: tuple[Condition, ...] | None = ()


class Job(Object, frozen=True):
    status: JobStatus = JobStatus()

    @property
    def over(self) -> bool:
        """Ended either way, or about to: it makes no further pod."""
        ends = {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}
        return any(condition.type in ends and condition.status == "True" for condition in self.status.conditions or ())


class Event(Object, frozen=True):
    type: str = ""
    reason: str = ""
    message: str | None = ""


class ClaimSpec(Slim, frozen=True):
    storage_class_name: str | None = None


class ClaimStatus(Slim, frozen=True):
    phase: str = ""


class Claim(Object, frozen=True):
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class ConfigMap(Object, frozen=True):
    data: dict[str, str] | None = None


T = TypeVar("T", bound=Object)


def slim(document: dict[str, Any], kind: type[T]) -> T:
    """A plain document of the API as the structure `kind`."""
    return msgspec.convert(document, kind)
