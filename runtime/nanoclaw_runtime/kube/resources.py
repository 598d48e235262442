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
STATEFUL_SETS: Final = Resource("StatefulSet", "statefulsets", "/apis/apps/v1")
DEPLOYMENTS: Final = Resource("Deployment", "deployments", "/apis/apps/v1")
CONFIG_MAPS: Final = Resource("ConfigMap", "configmaps")


class Slim(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of everything decoded from the API: camelCase outside, unknown fields skipped."""


class Metadata(Slim, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
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
    container_id: str = msgspec.field(default="", name="containerID")


FORGOTTEN: Final = "Forgotten"
"""Reason we give to the end of a container that was restarted so often that nobody knows its first end."""


class ContainerState(Slim, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Slim, frozen=True):
    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    restart_count: int = 0
    image: str = ""
    container_id: str = msgspec.field(default="", name="containerID")

    @property
    def first_run(self) -> ContainerState:
        """What became of the container as it was started first; a pod that restarts it shows only the last two."""
        between = self.state.waiting is not None and self.last_state.terminated is not None
        if self.restart_count == 0:
            return self.last_state if between else self.state
        made = self.state.waiting is not None and not self.state.waiting.reason  # and did not run yet
        if self.restart_count == 1 and (made or not between):
            return self.last_state
        return ContainerState(terminated=Terminated(exit_code=255, reason=FORGOTTEN))

    @property
    def first_container(self) -> str:
        """The id of the container of that run; empty where nobody knows."""
        ended = self.first_run.terminated
        return ended.container_id if self.restart_count and ended is not None else self.container_id


class PodStatus(Slim, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] | None = ()
    container_statuses: tuple[ContainerStatus, ...] | None = ()


class PodSpec(Slim, frozen=True):
    node_name: str = ""
    restart_policy: str = "Never"


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def container(self, name: str) -> ContainerState:
        """The state of one container's first run; empty while the kubelet has not seen it.

        Sessions live in first runs only: where a pod restarts its container, that one has no input.
        """
        for status in self.status.container_statuses or ():
            if status.name == name:
                return status.first_run
        return ContainerState()

    def restarts(self, name: str) -> int:
        """How often one container was started again."""
        statuses = self.status.container_statuses or ()
        return next((status.restart_count for status in statuses if status.name == name), 0)

    def first_container(self, name: str) -> str:
        """The id of the container of the first run of one; another one than before when the node has lost count."""
        statuses = self.status.container_statuses or ()
        return next((status.first_container for status in statuses if status.name == name), "")

    @property
    def ready(self) -> bool:
        found = self.condition("Ready")
        return found is not None and found.status == "True"

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


class StatefulSetSpec(Slim, frozen=True):
    replicas: int = 1


class StatefulSetStatus(Slim, frozen=True):
    observed_generation: int = 0
    replicas: int = 0


class StatefulSet(Object, frozen=True):
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()

    @property
    def empty(self) -> bool:
        """It is to have no pod, and its controller has seen to that."""
        return not self.spec.replicas and not self.status.replicas and self.observed

    @property
    def observed(self) -> bool:
        return self.status.observed_generation >= self.metadata.generation


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
