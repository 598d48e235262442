"""What admission refuses of agents' objects, as data: conditions in CEL, each with what to do about it.

A pod, Job or StatefulSet is an agent's when it has a label of ours that nothing else has, or the agents' account.
Pods are judged when they are made; later only what is ours in them must stay as it was, so that a changed stack never
holds up a session that runs. Deleting, logs, exec and attach are nobody's business here, and what other pods of the
namespace do is that of Pod Security.

What the controller makes is an agent's whatever it is called, or else a Job without a label of ours could mount every
Secret of the namespace. Whoever may act as the controller is the controller to these rules. In the layout `shared` a
folder whose name is folded cannot be checked against the group's label: a hash is more than CEL knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nanoclaw_infra.guardrails.expressions import (
    FOLDER,
    GROUP,
    entry,
    listed,
    marked,
    own_claims,
    own_folders,
    own_places,
    runs_as_agent,
    shared_place,
    text,
    unchanged,
)
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import ControllerConfig, Pattern
from nanoclaw_runtime.contract.mounts import as_written

CONTAINERS: Final = ("agent",)
"""The containers of an agent's pod, no more and no less."""

OWNERS: Final = {Pattern.STATEFULSET: ("Job", "StatefulSet")}
"""What makes pods of agents, by pattern; a Job where nothing is said."""

POD_MAKERS: Final = (
    "system:serviceaccount:kube-system:job-controller",
    "system:serviceaccount:kube-system:statefulset-controller",
    "system:kube-controller-manager",  # all of them, where controllers have no accounts of their own
)

_OBJECT, _SPEC = "object.metadata", "object.spec"
_VOLUMES: Final = "object.spec.?volumes.orValue([])"


_KEPT_OF_PODS: Final = (
    "serviceAccountName", "automountServiceAccountToken", "initContainers", "securityContext", "runtimeClassName",
    "nodeName", "hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace",
)  # fmt: skip
_KEPT_OF_CONTAINERS: Final = (
    "image", "command", "args", "env", "envFrom", "lifecycle", "securityContext", "volumeDevices", "ports",
)  # fmt: skip
# Of the controller's own Deployment: what decides what runs, as whom and how near the node.


@dataclass(frozen=True)
class Rule:
    """Must hold, or the request is refused."""

    expression: str
    message: str
    """What is wanted, and what to do."""
    found: str = ""
    """CEL: what is there instead, a string."""


@dataclass(frozen=True)
class Admission:
    """One ValidatingAdmissionPolicy: which requests it looks at, and what it wants of them."""

    name: str
    told: str
    """For whoever finds it in the cluster, where CEL is hard to read."""
    kinds: tuple[tuple[str, str], ...]
    """API group and resource."""
    operations: tuple[str, ...]
    applies: str
    """CEL: whether the object is an agent's."""
    rules: tuple[Rule, ...]
    variables: dict[str, str] = field(default_factory=dict)


def admissions(config: ControllerConfig, namespace: str) -> tuple[Admission, ...]:
    """Everything that is asked of agents' objects in `namespace`."""
    return _workloads(config, namespace), _pods(config), _changes(), _own_deployment(namespace)


def _workloads(config: ControllerConfig, namespace: str) -> Admission:
    controller = _is_controller(namespace)
    template = "object.spec.template"
    was = "request.operation == 'UPDATE' && "
    return Admission(
        "agent-workloads",
        f"{names.CONTROLLER} alone makes the Jobs and StatefulSets of agents, and makes nothing else.",
        kinds=(("batch", "jobs"), ("apps", "statefulsets")),
        operations=("CREATE", "UPDATE"),
        applies=" || ".join(
            (
                controller,  # which needs to make nothing else
                marked(_OBJECT),
                marked(f"{template}.?metadata"),
                runs_as_agent(f"{template}.spec"),
                f"({was}({marked('oldObject.metadata')} || {marked('oldObject.spec.template.?metadata')}))",
            )
        ),
        rules=(
            Rule(
                f"request.operation != 'CREATE' || {controller}",
                f"Jobs and StatefulSets with labels or the account of agents are made by {names.CONTROLLER} alone; "
                f"send the group a message, or take {labels.PREFIX}* and {names.AGENT_ACCOUNT} out of your own",
                found="'made by ' + request.userInfo.username",
            ),
            Rule(
                f"object.kind in {listed(_owners(config))}",
                f"with the pattern {config.pattern.value!r} agents run in {' and '.join(_owners(config))}s only; "
                "change nanoclaw:settings.runtime.pattern",
            ),
            Rule(
                # Its pods are then judged as agents', and mount no Secret of the namespace.
                f"!({controller}) || {runs_as_agent(f'{template}.spec')}",
                f"{names.CONTROLLER} makes objects of agents alone; give the pod template the account "
                f"{names.AGENT_ACCOUNT}, and the rest of what an agent's pod has",
                found=f"'account ' + {template}.spec.?serviceAccountName.orValue('')",
            ),
            Rule(
                f"request.operation != 'UPDATE' || {controller} || "
                f"({unchanged('labels')} && {unchanged('annotations')} && {template} == oldObject.spec.template)",
                f"the labels, annotations and pod template of agents are changed by {names.CONTROLLER} alone; delete "
                "the object instead, the controller makes a new one",
            ),
        ),
    )


def _pods(config: ControllerConfig) -> Admission:
    return Admission(
        "agent-pods",
        "Agents' pods come from those alone, have no rights and no Secrets, run the configured image, and mount what "
        "is their group's.",
        kinds=(("", "pods"),),
        operations=("CREATE",),
        applies=f"{marked(_OBJECT)} || {runs_as_agent(_SPEC)}",
        variables={
            "group": entry(_OBJECT, "labels", labels.GROUP),
            "folder": entry(_OBJECT, "annotations", labels.FOLDER),
            "claims": own_claims(config.layout),
            "places": own_places(config.layout),
            "shared": shared_place(config.layout),
        },
        rules=(*_origin(config), *_container(config), *_isolation(), *_volumes(config)),
    )


def _changes() -> Admission:
    return Admission(
        "agent-changes",
        "An agent's pod stays the group's it was made for, with its image, and gets no debug container.",
        kinds=(("", "pods"), ("", "pods/ephemeralcontainers")),
        operations=("UPDATE",),
        applies=f"{marked(_OBJECT)} || {marked('oldObject.metadata')} || {runs_as_agent(_SPEC)}",
        rules=(
            Rule(
                f"{unchanged('labels')} && {unchanged('annotations')}",
                f"labels and annotations of agents ({labels.PREFIX}*, {labels.NAME}, {labels.COMPONENT}) are neither "
                "added to a pod nor changed nor taken away; delete the pod instead",
            ),
            Rule(
                _each("oldObject.spec.containers.exists(old, old.name == each.name && old.?image == each.?image)"),
                "the image of an agent that runs is not changed; change nanoclaw:settings.runtime.agent.image, its "
                "next session has it",
            ),
            Rule(
                f"{_SPEC}.?ephemeralContainers.orValue([]).size() == 0",
                "a container beside an agent could read what it was given; look at its log, or `kubectl exec` into it",
            ),
        ),
    )


def _own_deployment(namespace: str) -> Admission:
    """What the controller may make of itself, where groups are added at run time: it mounts their claims."""
    new, old = "object.spec.template.spec", "oldObject.spec.template.spec"
    claim = f"each.?persistentVolumeClaim.?claimName.orValue('').startsWith({text(names.OWN_PREFIX)})"
    return Admission(
        "controller-changes",
        f"Of itself {names.CONTROLLER} changes which claims of groups it mounts, and nothing refused to agents.",
        kinds=(("apps", "deployments"),),
        operations=("UPDATE",),
        applies=_is_controller(namespace),
        rules=(
            Rule(
                " && ".join(
                    (
                        *(f"{new}.?{name} == {old}.?{name}" for name in _KEPT_OF_PODS),
                        f"{new}.containers.size() == {old}.containers.size()",
                        f"{new}.containers.all(each, {old}.containers.exists(was, each.name == was.name && "
                        + " && ".join(f"each.?{name} == was.?{name}" for name in _KEPT_OF_CONTAINERS)
                        + "))",
                        f"{new}.?volumes.orValue([]).all(each, each in {old}.?volumes.orValue([]) || {claim})",
                    )
                ),
                f"of its own Deployment {names.CONTROLLER} changes which claims of groups it mounts, and nothing else; "
                "run `pulumi up`",
            ),
        ),
    )


def _is_controller(namespace: str) -> str:
    return f"request.userInfo.username == {text(f'system:serviceaccount:{namespace}:{names.CONTROLLER}')}"


def _origin(config: ControllerConfig) -> tuple[Rule, ...]:
    """A pod of ours comes from a Job of ours, and says whose it is."""
    owners = _owners(config)
    groups = "[" + ", ".join(text({"Job": "batch/v1", "StatefulSet": "apps/v1"}[kind]) for kind in owners) + "]"
    own_name = f"^[a-z0-9]([a-z0-9-]{{0,{names.SLUG_LENGTH - 2}}}[a-z0-9])?$"
    hashed = "-[0-9a-f]{10}$"
    return (
        Rule(
            f"request.userInfo.username in {listed(POD_MAKERS)}",
            f"pods with labels or the account of agents are made by {' or '.join(owners)}s of {names.CONTROLLER} "
            f"alone; send the group a message, or take {labels.PREFIX}* and {names.AGENT_ACCOUNT} out of your own pods",
            found="'made by ' + request.userInfo.username",
        ),
        Rule(
            f"{_OBJECT}.?ownerReferences.orValue([]).exists(owner, owner.kind in {listed(owners)} && "
            f"owner.apiVersion in {groups} && owner.?controller.orValue(false))",
            f"an agent's pod belongs to a {' or '.join(owners)}; let the controller make it",
        ),
        Rule(
            f"{entry(_OBJECT, 'labels', labels.COMPONENT)} == {text(labels.AGENT)} && "
            f"{FOLDER}.matches({text(names.FOLDER_PATTERN)}) && {GROUP} != '' && "
            f"({FOLDER}.matches({text(own_name)}) && !{FOLDER}.matches({text(hashed)}) "
            f"? {GROUP} == {FOLDER} : {GROUP}.matches({text(hashed)}))",
            f"an agent's pod says of which group it is, by the label {labels.GROUP} and the annotation "
            f"{labels.FOLDER}, and both say the same; let the controller make it",
            found=f"'group ' + {GROUP} + ', folder ' + {FOLDER}",
        ),
        Rule(
            runs_as_agent(_SPEC),
            f"agents run as the account {names.AGENT_ACCOUNT}, which has no rights; let the controller make the pod",
            found=f"'account ' + {_SPEC}.?serviceAccountName.orValue('')",
        ),
        Rule(
            f"!{_SPEC}.?automountServiceAccountToken.orValue(true)",
            "agents get no token of the API server; set automountServiceAccountToken to false",
        ),
    )


def _container(config: ControllerConfig) -> tuple[Rule, ...]:
    """What runs in the pod is the configured image's own entry point, with settings anybody may read."""
    return (
        Rule(
            f"{_SPEC}.containers.map(each, each.name) == {listed(CONTAINERS)} && "
            f"{_SPEC}.?initContainers.orValue([]).size() == 0",
            f"an agent's pod has the container{'s' * (len(CONTAINERS) > 1)} {', '.join(CONTAINERS)} and no other; keep "
            "whatever injects sidecars out of this namespace",
            found=f"'containers ' + {_SPEC}.containers.map(each, each.name).join(', ')",
        ),
        Rule(
            _each(f"each.?image.orValue('') == {text(config.agent.image)}"),
            f"agents run the image {config.agent.image}; change it in nanoclaw:settings.runtime.agent.image",
            found=f"'image ' + {_SPEC}.containers.map(each, each.?image.orValue('')).join(', ')",
        ),
        Rule(
            _each("!has(each.command) && !has(each.args) && !has(each.lifecycle)"),
            "agents run their image's own entry point; take command, args and lifecycle away",
        ),
        Rule(
            _each("each.?envFrom.orValue([]).size() == 0 && each.?env.orValue([]).all(one, !has(one.valueFrom))"),
            "agents get no variables from Secrets, ConfigMaps or fields; secrets go over stdin, plain settings into "
            "nanoclaw:settings.runtime.agent.env",
        ),
        Rule(
            _each("['cpu', 'memory'].all(one, one in each.?resources.?limits.orValue({}))"),
            "agents have limits of cpu and memory; set them in nanoclaw:settings.runtime.agent.resources",
        ),
    )


def _isolation() -> tuple[Rule, ...]:
    """No more rights than Pod Security `restricted` leaves, whatever the namespace enforces."""
    context = "each.?securityContext"
    profiles = listed(("RuntimeDefault", "Localhost"))
    return (
        Rule(
            " && ".join(f"!{_SPEC}.?{name}.orValue(false)" for name in ("hostNetwork", "hostPID", "hostIPC"))
            + f" && {_each('each.?ports.orValue([]).all(port, port.?hostPort.orValue(0) == 0)')}",
            "agents stay out of the node's network and processes; take hostNetwork, hostPID, hostIPC and hostPort away",
        ),
        Rule(
            _each(
                f"!{context}.?privileged.orValue(false) && !{context}.?allowPrivilegeEscalation.orValue(true) && "
                f"{context}.?capabilities.?add.orValue([]).size() == 0 && "
                f"'ALL' in {context}.?capabilities.?drop.orValue([])"
            ),
            "agents are never privileged; set allowPrivilegeEscalation to false, drop ALL capabilities and add none",
        ),
        Rule(
            f"{_SPEC}.?securityContext.?runAsNonRoot.orValue(false) && "
            f"{_SPEC}.?securityContext.?runAsUser.orValue(1) != 0 && "
            + _each(f"{context}.?runAsNonRoot.orValue(true) && {context}.?runAsUser.orValue(1) != 0"),
            "agents are never root; set runAsNonRoot to true and no runAsUser of 0",
        ),
        Rule(
            f"{_SPEC}.?securityContext.?seccompProfile.?type.orValue('') in {profiles} && "
            f"{_SPEC}.?securityContext.?sysctls.orValue([]).size() == 0 && "
            + _each(
                f"{context}.?seccompProfile.?type.orValue('RuntimeDefault') in {profiles} && "
                f"{context}.?procMount.orValue('Default') == 'Default'"
            ),
            "agents keep the runtime's filter of system calls and its /proc; set seccompProfile to RuntimeDefault, and "
            "take procMount and sysctls away",
        ),
        Rule(
            f"{_confined(f'{_SPEC}.?securityContext')} && {_each(_confined(context))}",
            "agents keep the node's SELinux and AppArmor; take type, user and role of seLinuxOptions, and the "
            "appArmorProfile Unconfined away",
        ),
        Rule(
            _each(f"{context}.?readOnlyRootFilesystem.orValue(false)"),
            "agents cannot change their image; set readOnlyRootFilesystem to true",
        ),
    )


def _confined(context: str) -> str:
    """Whether a securityContext leaves SELinux, but for a level, and AppArmor as the node has them."""
    selinux = [f"{context}.?seLinuxOptions.?{name}.orValue('') == ''" for name in ("type", "user", "role")]
    return " && ".join((*selinux, f"{context}.?appArmorProfile.?type.orValue('') != 'Unconfined'"))


def _volumes(config: ControllerConfig) -> tuple[Rule, ...]:
    """A group's pod sees the group's own claims, what all see, and what the allowlist names."""
    allowlist = config.mount_allowlist
    claims = [source.name for source in allowlist.claims] if allowlist else []
    config_maps = [source.name for source in allowlist.config_maps] if allowlist else []
    ours = f"startsWith({text(names.OWN_PREFIX)})"
    claimed = f"{_VOLUMES}.filter(each, has(each.persistentVolumeClaim))"
    claim = "each.persistentVolumeClaim.claimName"
    place = "(mount.name + '/' + mount.?subPath.orValue('') + '/')"
    return (
        Rule(
            f"{_VOLUMES}.all(each, has(each.emptyDir) || has(each.persistentVolumeClaim) || has(each.configMap) || "
            f"has(each.hostPath)) && {_each('each.?volumeDevices.orValue([]).size() == 0')}",
            "agents mount claims, ConfigMaps and scratch space, and no Secret, token or device; secrets go over stdin",
            found="'volumes ' + " + f"{_VOLUMES}.map(each, each.name).join(', ')",
        ),
        Rule(
            f"{claimed}.all(each, {claim} in variables.claims || !{claim}.{ours} && {claim} in {listed(claims)})",
            "agents mount the claims of their own group and no other; add yours to "
            "nanoclaw:settings.runtime.mountAllowlist.claims",
            found=f"'group ' + {GROUP} + ', claims ' + {claimed}.map(each, {claim}).join(', ')",
        ),
        Rule(
            # So that a mount can be judged by the name of its volume.
            f"{claimed}.all(each, !{claim}.{ours} || each.name == {claim})",
            "the volume of a claim of ours is called like the claim; let the controller make the pod",
        ),
        Rule(
            _every_mount(
                f"!mount.name.{ours} || !has(mount.subPathExpr) && (variables.places.exists(own, "
                f"{place}.startsWith(own)) || {place}.startsWith(variables.shared))"
            ),
            "agents see the folders of their own group, and of the others none; let the controller make the pod",
            found=f"'group ' + {GROUP} + ', mounts ' + {_SPEC}.containers.map(each, each.?volumeMounts.orValue([]).map("
            "mount, mount.name + '/' + mount.?subPath.orValue('')).join(', ')).join(', ')",
        ),
        Rule(
            _every_mount(f"!{place}.startsWith(variables.shared) || mount.?readOnly.orValue(false)"),
            "what all groups see is mounted read-only; set readOnly to true",
        ),
        Rule(
            f"{_VOLUMES}.all(each, !has(each.configMap) || each.configMap.?name.orValue('') in {listed(config_maps)})",
            "agents mount no ConfigMap that is not allowed; add it to "
            "nanoclaw:settings.runtime.mountAllowlist.configMaps",
        ),
        _node_folders(config),
    )


def _node_folders(config: ControllerConfig) -> Rule:
    allowlist = config.mount_allowlist
    roots = [
        root
        for each in (allowlist.allowed_roots if allowlist and allowlist.host_paths_on_nodes else ())
        if (root := as_written(each.path)) is not None
    ]
    allowed = listed(f"{root.rstrip('/')}/" for root in roots) if roots else listed(())
    if config.pattern is Pattern.NODELOCAL:
        allowed = f"({allowed} + {own_folders(config.node_root)})"
    return Rule(
        f"{_VOLUMES}.all(each, !has(each.hostPath) || "
        f"{allowed}.exists(root, root != '' && (each.hostPath.path + '/').startsWith(root)))",
        "agents mount no folder of a node but those of their own group with the pattern 'nodelocal'; add yours to "
        "nanoclaw:settings.runtime.mountAllowlist.allowedRoots, and set hostPathsOnNodes to true",
        found=f"'folders ' + {_VOLUMES}.filter(each, has(each.hostPath)).map(each, each.hostPath.path).join(', ')",
    )


def _each(condition: str) -> str:
    """Whether every container, called `each`, meets the condition."""
    return f"{_SPEC}.containers.all(each, {condition})"


def _every_mount(condition: str) -> str:
    """Whether every mount of every container, called `mount`, meets the condition."""
    return _each(f"each.?volumeMounts.orValue([]).all(mount, {condition})")


def _owners(config: ControllerConfig) -> tuple[str, ...]:
    return OWNERS.get(config.pattern, ("Job",))
