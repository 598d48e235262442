"""Which SecurityContextConstraints of OpenShift admits a pod, and what it fills in; or why none does.

The published rules of the constraints that every cluster has, as far as they concern what our pods and their mistakes
say, and the words of OpenShift's messages. Its own admission cannot be run here. Not covered: AppArmor, sysctls,
Flex volumes, and of constraints that somebody made all but what `Constraint.made` reads.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Pod = dict[str, Any]

REQUIRED = "openshift.io/required-scc"
UID_RANGE = "openshift.io/sa.scc.uid-range"
GROUPS = "openshift.io/sa.scc.supplemental-groups"
MCS = "openshift.io/sa.scc.mcs"

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"}
_USER_NAMESPACE = range(1000, 65535)


@dataclass(frozen=True)
class Project:
    """What OpenShift wrote to a namespace."""

    uids: range
    groups: range
    level: str

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> Project:
        uids = annotations[UID_RANGE]
        return cls(_range(uids), _range(annotations.get(GROUPS, uids)), annotations[MCS])


def _range(text: str) -> range:
    """`first/size` or `first-last`; of several the first."""
    first, dash, last = text.split(",", maxsplit=1)[0].partition("-")
    if dash:
        return range(int(first), int(last) + 1)
    start, _, size = text.split(",", maxsplit=1)[0].partition("/")
    return range(int(start), int(start) + int(size))


PROJECT = Project.of({UID_RANGE: "1000650000/10000", MCS: "s0:c26,c0"})
"""The namespace of the table in which the real admission's verdicts were written down."""


@dataclass(frozen=True)
class Constraint:
    """One SecurityContextConstraints: those of version 2 differ in users and groups only."""

    name: str
    everybody: bool = False
    """Whether every account may use it; the others need a RoleBinding."""
    any_user: bool = False
    """Every user but root, and every group; else those of the namespace's range."""
    user_namespace: bool = False
    """Whether pods have users of their own, of a wide range."""
    ids: range | None = None
    """The users and groups it insists on, where they are not the namespace's."""
    folders: bool = False
    """Whether it permits folders of nodes."""
    read_only_root: bool = False
    """Whether every container has to keep its image as it is."""

    @classmethod
    def made(cls, manifest: Mapping[str, Any]) -> Constraint:
        """One of somebody's own, of one user and group; whatever is looser than restricted-v2 otherwise is an error."""
        closed = ("HostIPC", "HostNetwork", "HostPID", "HostPorts", "PrivilegedContainer", "PrivilegeEscalation")
        assert not any(manifest[f"allow{each}"] for each in closed)
        assert manifest["requiredDropCapabilities"] == ["ALL"]
        assert not manifest["allowedCapabilities"]
        assert manifest["seccompProfiles"] == ["runtime/default"]
        assert {manifest["runAsUser"]["type"], manifest["seLinuxContext"]["type"]} == {"MustRunAs"}
        (group,) = manifest["fsGroup"]["ranges"]
        ids = range(group["min"], group["max"] + 1)
        assert manifest["runAsUser"]["uid"] in ids
        unknown = set(manifest["volumes"]) - _VOLUMES - {"secret", "hostPath"}
        assert not unknown
        folders = manifest["allowHostDirVolumePlugin"] and "hostPath" in manifest["volumes"]
        root = manifest["readOnlyRootFilesystem"]
        return cls(manifest["metadata"]["name"], ids=ids, folders=folders, read_only_root=root)


RESTRICTED_V2 = Constraint("restricted-v2", everybody=True)
RESTRICTED_V3 = Constraint("restricted-v3", everybody=True, user_namespace=True)
NONROOT_V2 = Constraint("nonroot-v2", any_user=True)
CONSTRAINTS = (RESTRICTED_V2, RESTRICTED_V3, NONROOT_V2)
"""The most restrictive first, as they are tried."""


@dataclass(frozen=True)
class Verdict:
    """What became of a pod."""

    constraint: str | None
    """The one that admitted it."""
    pod: Pod
    """With what the constraint filled in."""
    refusals: tuple[str, ...] = ()
    """One message for each reason of each constraint that was tried."""


def admit(pod: Pod, project: Project, bound: Collection[str] = (), made: Collection[Constraint] = ()) -> Verdict:
    """The verdict on `pod` of an account that may use the constraints `bound` and `made` besides everybody's."""
    required = pod.get("metadata", {}).get("annotations", {}).get(REQUIRED)
    refusals: list[str] = []
    for constraint in (*CONSTRAINTS, *made):
        if required not in {None, constraint.name}:
            continue
        if not constraint.everybody and constraint.name not in bound and constraint not in made:
            refusals.append(f'provider "{constraint.name}": Forbidden: not usable by user or serviceaccount')
            continue
        filled = _filled(pod, constraint, project)
        problems = [*_pod_problems(filled, constraint, project), *_container_problems(filled, constraint, project)]
        if not problems:
            filled.setdefault("metadata", {}).setdefault("annotations", {})["openshift.io/scc"] = constraint.name
            return Verdict(constraint.name, filled)
        refusals += [f"provider {constraint.name}: {problem}" for problem in problems]
    if required is not None and not refusals:
        refusals.append(f"required scc/{required} not found")
    return Verdict(None, pod, tuple(refusals))


def _filled(pod: Pod, constraint: Constraint, project: Project) -> Pod:
    """A copy in which nothing is left unsaid that the constraint says."""
    pod = copy.deepcopy(pod)
    security = pod["spec"].setdefault("securityContext", {})
    security.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    security.setdefault("seLinuxOptions", {}).setdefault("level", project.level)
    if not constraint.any_user:
        security.setdefault("fsGroup", _groups(constraint, project)[0])
    for _, container in _containers(pod):
        own = container.setdefault("securityContext", {})
        if constraint.any_user:
            own.setdefault("runAsNonRoot", True)
        elif "runAsUser" not in security:
            own.setdefault("runAsUser", _users(constraint, project)[0])
        own.setdefault("allowPrivilegeEscalation", False)
        dropped = own.setdefault("capabilities", {}).setdefault("drop", [])
        if "ALL" not in dropped:
            dropped.append("ALL")
    return pod


def _pod_problems(pod: Pod, constraint: Constraint, project: Project) -> Iterator[str]:
    spec, security = pod["spec"], pod["spec"]["securityContext"]
    for field, words in (("hostNetwork", "Host network"), ("hostPID", "Host PID"), ("hostIPC", "Host IPC")):
        if spec.get(field):
            yield f".spec.securityContext.{field}: Invalid value: true: {words} is not allowed to be used"
    if constraint.user_namespace and spec.get("hostUsers", True):
        yield ".spec.hostUsers: Invalid value: null: Host Users must be set to false"
    group = security.get("fsGroup")
    if not constraint.any_user and group not in _groups(constraint, project):
        yield f".spec.securityContext.fsGroup: Invalid value: [{group}]: {group} is not an allowed group"
    level = security["seLinuxOptions"]["level"]
    if level != project.level:
        yield f".spec.securityContext.seLinuxOptions.level: Invalid value: {level!r}: must be {project.level}"
    yield from _seccomp(".spec.securityContext", security)
    for position, volume in enumerate(spec.get("volumes", [])):
        for kind in volume.keys() - {"name"} - _VOLUMES - {"secret", *(["hostPath"] if constraint.folders else [])}:
            yield f'spec.volumes[{position}]: Invalid value: "{kind}": {kind} volumes are not allowed to be used'


def _container_problems(pod: Pod, constraint: Constraint, project: Project) -> Iterator[str]:
    for place, container in _containers(pod):
        own = container["securityContext"]
        user = own.get("runAsUser", pod["spec"]["securityContext"].get("runAsUser"))
        users = _users(constraint, project)
        if constraint.any_user and user == 0:
            yield f"{place}.runAsUser: Invalid value: 0: running with the root UID is forbidden"
        if not constraint.any_user and user not in users:
            yield f"{place}.runAsUser: Invalid value: {user}: must be in the ranges: [{users[0]}, {users[-1]}]"
        yield from _switches(place, own, constraint)
        for capability in own["capabilities"].get("add", []):
            if capability != "NET_BIND_SERVICE":
                yield f'{place}.capabilities.add: Invalid value: "{capability}": capability may not be added'
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"{place}.hostPort: Invalid value: {port['hostPort']}: Host ports are not allowed to be used"
        yield from _seccomp(place, own)


def _switches(place: str, own: Mapping[str, Any], constraint: Constraint) -> Iterator[str]:
    if constraint.read_only_root and not own.get("readOnlyRootFilesystem"):
        yield f"{place}.readOnlyRootFilesystem: Invalid value: false: ReadOnlyRootFilesystem must be set to true"
    if own.get("privileged"):
        yield f"{place}.privileged: Invalid value: true: Privileged containers are not allowed"
    if own["allowPrivilegeEscalation"]:
        yield (
            f"{place}.allowPrivilegeEscalation: Invalid value: true: Allowing privilege escalation for containers "
            "is not allowed"
        )


def _seccomp(place: str, security: Mapping[str, Any]) -> Iterator[str]:
    profile = security.get("seccompProfile", {}).get("type", "RuntimeDefault")
    if profile != "RuntimeDefault":
        yield (
            f'{place}.seccompProfile: Invalid value: "{profile.lower()}": {profile.lower()} is not a valid seccomp '
            "profile. Valid values are [runtime/default]"
        )


def _users(constraint: Constraint, project: Project) -> range:
    return constraint.ids or (_USER_NAMESPACE if constraint.user_namespace else project.uids)


def _groups(constraint: Constraint, project: Project) -> range:
    return constraint.ids or (_USER_NAMESPACE if constraint.user_namespace else project.groups)


def _containers(pod: Pod) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("initContainers", "containers"):
        for position, container in enumerate(pod["spec"].get(kind, [])):
            yield f".{kind}[{position}]", container
