"""What admission refuses of agents' objects, as data: conditions in CEL, each with what to do about it.

A pod, Job or StatefulSet is an agent's when it has a label of ours that nothing else has, or the agents' account.
Pods are judged when they are made; later only what is ours in them must stay as it was, so that a changed stack never
holds up a session that runs. Deleting, logs, exec and attach are nobody's business here, and what other pods of the
namespace do is that of Pod Security.

What the controller makes is an agent's whatever it is called, or else a Job without a label of ours could mount every
Secret of the namespace. Whoever may act as the controller is the controller to these rules. In the layout `shared`, and
on the disks of nodes, a folder whose name is folded cannot be checked against the group's label: a hash is more than
CEL knows.
"""

from __future__ import annotations

from typing import Final

from nanoclaw_infra.guardrails.admission import CONTAINERS, OBJECT, SPEC, Admission, Rule, each, is_controller, owners
from nanoclaw_infra.guardrails.expressions import listed, marked, runs_as_agent, text, unchanged
from nanoclaw_infra.guardrails.pods import pods
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import ControllerConfig

_KEPT_OF_PODS: Final = (
    "serviceAccountName", "automountServiceAccountToken", "initContainers", "securityContext", "runtimeClassName",
    "nodeName", "hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace",
)  # fmt: skip
_KEPT_OF_CONTAINERS: Final = (
    "image", "command", "args", "env", "envFrom", "lifecycle", "securityContext", "volumeDevices", "ports",
)  # fmt: skip
# Of the controller's own Deployment: what decides what runs, as whom and how near the node.


def admissions(config: ControllerConfig, namespace: str) -> tuple[Admission, ...]:
    """Everything that is asked of agents' objects in `namespace`."""
    return _workloads(config, namespace), pods(config), _changes(), _own_deployment(namespace)


def _workloads(config: ControllerConfig, namespace: str) -> Admission:
    controller = is_controller(namespace)
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
                marked(OBJECT),
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
                f"request.operation != 'CREATE' || object.kind in {listed(owners(config))}",
                f"with the pattern {config.pattern.value!r} agents run in {' and '.join(owners(config))}s only; "
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


def _changes() -> Admission:
    return Admission(
        "agent-changes",
        "An agent's pod stays the group's it was made for, with its image, and gets no debug container.",
        kinds=(("", "pods"), ("", "pods/ephemeralcontainers")),
        operations=("UPDATE",),
        applies=f"{marked(OBJECT)} || {marked('oldObject.metadata')} || {runs_as_agent(SPEC)}",
        variables={
            **CONTAINERS,
            "were": "oldObject.spec.containers + oldObject.spec.?initContainers.orValue([])",
        },
        rules=(
            Rule(
                f"{unchanged('labels')} && {unchanged('annotations')}",
                f"labels and annotations of agents ({labels.PREFIX}*, {labels.NAME}, {labels.COMPONENT}) are neither "
                "added to a pod nor changed nor taken away; delete the pod instead",
            ),
            Rule(
                each("variables.were.exists(old, old.name == each.name && old.?image == each.?image)"),
                "the image of an agent that runs is not changed; change nanoclaw:settings.runtime.agent.image, its "
                "next session has it",
            ),
            Rule(
                f"{SPEC}.?ephemeralContainers.orValue([]).size() == 0",
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
        applies=is_controller(namespace),
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
