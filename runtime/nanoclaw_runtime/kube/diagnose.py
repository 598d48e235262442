"""What went wrong with a session's pod, from what Kubernetes says about it.

Pure: structures of the API in, one `Diagnosis` out, told once for the operator with the evidence
and the remedy and once for the chat without any infrastructure. Nothing an agent printed to
stdout is ever quoted; of stderr the last 200 characters, as NanoClaw does on Docker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.kube import resources
from nanoclaw_runtime.kube.errors import AlreadyExists, DeadlineExceeded, Forbidden, Invalid, KubeError
from nanoclaw_runtime.kube.resources import Claim, Event, Pod, Terminated

STDERR_SHOWN: Final = 200
"""Characters."""

IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
     "RegistryUnavailable", "SignatureValidationFailed"}
)  # fmt: skip
CONFIG_REASONS: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}
)
"""Reasons of a waiting container that no amount of waiting heals while the pod stays as it is."""

VOLUME_EVENTS: Final = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "ProvisioningFailed", "FailedBinding"}
)

BUSY: Final = "I cannot start right now because everything is in use; I will try again shortly."
BROKEN: Final = "I cannot start right now because of a problem on my side; whoever runs me has to look at it."
INTERRUPTED: Final = "I was interrupted while working on this; I will try again."
TOO_BIG: Final = "I ran out of memory while working on this; a smaller request may work."
FAILED: Final = "Something went wrong while I was working on this; I will try again."


def api_failure(error: KubeError) -> Diagnosis:
    """Why a call that a session needed was not served."""
    if isinstance(error, Forbidden):
        if error.quota:
            return Diagnosis(FailureKind.QUOTA, f"{error}; raise the ResourceQuota or end other sessions", BUSY)
        return Diagnosis(FailureKind.REFUSED, f"{error}; run `pulumi up` to restore the controller's Role", BROKEN)
    if isinstance(error, Invalid):
        return Diagnosis(FailureKind.REFUSED, f"{error}; the agent settings of the stack make no valid Job", BROKEN)
    if isinstance(error, AlreadyExists):
        return Diagnosis(FailureKind.REFUSED, f"{error}; delete the object of another session by hand", BROKEN)
    if isinstance(error, DeadlineExceeded):
        return Diagnosis(FailureKind.API, f"{error}; the API server does not answer, check its health", BUSY)
    return Diagnosis(FailureKind.API, f"{error}; check the API server's health", BUSY)


def no_pod(job: str, events: Sequence[Event]) -> Diagnosis | None:
    """Why the Job has no pod yet, from the Job's events; None when nothing speaks against one coming."""
    for event in reversed(events):
        if event.reason != "FailedCreate":
            continue
        message = _sentence(event.message)
        if "exceeded quota" in message or "insufficient quota" in message:
            remedy = "raise the ResourceQuota or end other sessions"
            return Diagnosis(FailureKind.QUOTA, f"Job {job} may have no pod: {message}; {remedy}", BUSY)
        remedy = "the namespace's admission (Pod Security, SCC, limits, ServiceAccount) and the stack disagree"
        return Diagnosis(FailureKind.REFUSED, f"the pod of Job {job} was refused: {message}; {remedy}", BROKEN)
    return None


def hopeless_start(pod: Pod, container: str) -> Diagnosis | None:
    """Why this pod will never run its container however long we wait, or None while it may."""
    name = pod.metadata.name
    waiting = pod.container(container).waiting
    if waiting is None:
        return None
    message = _sentence(waiting.message)
    if waiting.reason in IMAGE_REASONS:
        remedy = "check the stack's agent image and that the node may pull it"
        return Diagnosis(FailureKind.IMAGE, f"pod {name}: {waiting.reason}: {message}; {remedy}", BROKEN)
    if waiting.reason in CONFIG_REASONS:
        remedy = "the image does not fit the pod's settings (user, volumes, entry point)"
        return Diagnosis(FailureKind.REFUSED, f"pod {name}: {waiting.reason}: {message}; {remedy}", BROKEN)
    return None


def without_room(pod: Pod) -> bool:
    """No node has room for it now; a pod less somewhere may help."""
    found = _unscheduled(pod)
    return found is not None and found.kind is FailureKind.UNSCHEDULABLE


def late_start(
    job: str, pod: Pod | None, container: str, events: Sequence[Event] = (), claims: Sequence[Claim] = ()
) -> Diagnosis:
    """Why a session's container did not run before its start deadline; `events` are the pod's, or the Job's."""
    if pod is None:
        return no_pod(job, events) or Diagnosis(
            FailureKind.START_TIMEOUT,
            f"Job {job} got no pod in time; check that the cluster's Job controller runs and is not overloaded",
            BUSY,
        )
    node = pod.spec.node_name or "its node"
    last = f"; last event: {events[-1].reason}: {_sentence(events[-1].message)}" if events else ""
    slow = Diagnosis(
        FailureKind.START_TIMEOUT,
        f"pod {pod.metadata.name} on {node} was not ready for its input in time{last}; "
        "raise the start timeout if the node is slow",
        BUSY,
    )
    checks = (
        hopeless_start(pod, container),
        _unusable(pod, claims),
        _unscheduled(pod),  # before the claims that wait: some bind only once their pod has a node
        _unbound(pod, claims),
        _without_volume(pod, events),
        loss(pod),
    )
    return next((found for found in checks if found is not None), slow)


def attach_failure(pod: str, error: KubeError) -> Diagnosis:
    """Why a container that runs did not get its input."""
    if isinstance(error, Forbidden):
        return api_failure(error)
    remedy = "check that the API server reaches the node's kubelet, and that no proxy cuts WebSockets"
    return Diagnosis(FailureKind.ATTACH, f"pod {pod} could not be given its input: {error.message}; {remedy}", FAILED)


def ending(pod: Pod, container: str, stderr: str = "") -> Diagnosis | None:
    """Why this finished pod did not end well; None when its agent exited with 0.

    Callers ask when the container is terminated or the pod is finished.
    """
    name = pod.metadata.name
    terminated = pod.container(container).terminated
    if terminated is not None and terminated.exit_code == 0 and terminated.reason != "OOMKilled":
        return None
    if found := loss(pod):
        return found
    if terminated is None:
        message = _sentence(pod.status.message) or pod.status.reason or "no reason given"
        return Diagnosis(FailureKind.STOPPED, f"pod {name} ended as {pod.status.phase}: {message}", INTERRUPTED)
    return _exit(pod, terminated, stderr)


def _exit(pod: Pod, terminated: Terminated, stderr: str) -> Diagnosis:
    name, code = pod.metadata.name, terminated.exit_code
    tail = _sentence(stderr[-STDERR_SHOWN:])
    behind = f": {tail}" if tail else f"; see the log of pod {name}"
    match terminated.reason:
        case "OOMKilled":
            text = f"pod {name} used more memory than its limit and was killed; raise the agents' memory limit"
            return Diagnosis(FailureKind.OUT_OF_MEMORY, text, TOO_BIG, code)
        case "ContainerCannotRun" | "StartError":
            text = f"pod {name} could not start its command: {_sentence(terminated.message)}; check the agent image"
            return Diagnosis(FailureKind.IMAGE, text, BROKEN, code)
        case "ContainerStatusUnknown" | "Unknown":  # as the kubelet tells it, or the container runtime
            node = pod.spec.node_name or "its node"
            text = f"pod {name}: {node} lost track of its container, as after a restart of the node"
            return Diagnosis(FailureKind.NODE_LOST, text, INTERRUPTED, code)
        case resources.FORGOTTEN:
            text = f"the agent in pod {name} was started again more than once, and nobody saw how it ended first"
            return Diagnosis(FailureKind.STOPPED, text, INTERRUPTED, code)
    if code == 137:
        text = f"the agent in pod {name} was killed (exit code 137){behind}"
        kind = FailureKind.STOPPED if pod.metadata.deletion_timestamp else FailureKind.EXIT
        return Diagnosis(kind, text, INTERRUPTED, code)
    return Diagnosis(FailureKind.EXIT, f"the agent in pod {name} exited with code {code}{behind}", FAILED, code)


def loss(pod: Pod) -> Diagnosis | None:
    """The cluster took this pod away: evicted, preempted, its node lost, its deadline over. None otherwise."""
    name, node = pod.metadata.name, pod.spec.node_name or "its node"
    status = pod.status
    message = _sentence(status.message)
    disruption = pod.condition("DisruptionTarget")
    why = disruption.reason if disruption is not None and disruption.status == "True" else ""
    if status.reason == "NodeLost" or why in {"DeletionByTaintManager", "DeletionByPodGC"}:
        remedy = "bring the node back, or taint it node.kubernetes.io/out-of-service"
        return Diagnosis(
            FailureKind.NODE_LOST, f"pod {name}: node {node} does not answer any more; {remedy}", INTERRUPTED
        )
    if status.reason in {"NodeShutdown", "Terminated"} and status.phase == "Failed":
        return Diagnosis(FailureKind.NODE_LOST, f"pod {name}: node {node} was shut down: {message}", INTERRUPTED)
    if status.reason == "Evicted" or why in {"TerminationByKubelet", "EvictionByEvictionAPI", "PreemptionByScheduler"}:
        evidence = message or (_sentence(disruption.message) if disruption is not None else "")
        remedy = "the node needs more room or the agents higher requests"
        return Diagnosis(FailureKind.EVICTED, f"pod {name} was evicted from {node}: {evidence}; {remedy}", INTERRUPTED)
    if status.reason == "DeadlineExceeded":
        return Diagnosis(FailureKind.STOPPED, f"pod {name} reached the Job's deadline and was ended", INTERRUPTED)
    return None


def vanished(job: str, pod: Pod | None) -> Diagnosis:
    """The pod is no more, and nobody saw how it ended; `pod` is what was last seen of it."""
    if pod is not None and (found := loss(pod)):
        return found
    which = f"pod {pod.metadata.name}" if pod is not None else f"the pod of Job {job}"
    return Diagnosis(FailureKind.STOPPED, f"{which} was deleted by somebody while its agent ran", INTERRUPTED)


def undead(pod: Pod) -> Diagnosis:
    """A pod that was deleted and does not go away. It is never forced: its agent may still write."""
    node = pod.spec.node_name or "its node"
    return Diagnosis(
        FailureKind.NODE_LOST,
        f"pod {pod.metadata.name} does not go away, so node {node} is probably unreachable and its agent may still "
        "run; bring the node back, or taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute once it is off",
        BUSY,
    )


def _unusable(pod: Pod, claims: Sequence[Claim]) -> Diagnosis | None:
    for claim in claims:
        name = f"pod {pod.metadata.name}: claim {claim.metadata.name}"
        if not claim.status.phase:
            text = f"{name} does not exist; declare the group in the stack and run `pulumi up`"
            return Diagnosis(FailureKind.VOLUME, text, BROKEN)
        if claim.status.phase == "Lost":
            return Diagnosis(FailureKind.VOLUME, f"{name} lost its volume; restore it from a backup", BROKEN)
    return None


def _unbound(pod: Pod, claims: Sequence[Claim]) -> Diagnosis | None:
    for claim in claims:
        if claim.status.phase != "Bound":
            text = (
                f"pod {pod.metadata.name}: claim {claim.metadata.name} is {claim.status.phase}; check its storage class"
                f" ({claim.spec.storage_class_name or 'none is set'}) and the provisioner behind it"
            )
            return Diagnosis(FailureKind.VOLUME, text, BROKEN)
    return None


def _unscheduled(pod: Pod) -> Diagnosis | None:
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return None
    message = _sentence(scheduled.message) or scheduled.reason
    if re.search("persistentvolumeclaim|binding volumes", message, re.IGNORECASE):
        text = f"pod {pod.metadata.name} waits for a volume: {message}; check its claims"
        return Diagnosis(FailureKind.VOLUME, text, BROKEN)
    remedy = "free or add capacity, or lower the agents' requests"
    text = f"pod {pod.metadata.name} fits on no node: {message}; {remedy}"
    return Diagnosis(FailureKind.UNSCHEDULABLE, text, BUSY)


def _without_volume(pod: Pod, events: Sequence[Event]) -> Diagnosis | None:
    for event in reversed(events):
        if event.reason in VOLUME_EVENTS:
            remedy = "check the claim, its storage driver, and that no other node holds it"
            text = f"pod {pod.metadata.name}: {event.reason}: {_sentence(event.message)}; {remedy}"
            return Diagnosis(FailureKind.VOLUME, text, BROKEN)
    return None


def _sentence(text: str | None) -> str:
    """One line without the trailing full stop, at most 400 characters."""
    line = re.sub(r"\s+", " ", text or "").strip().rstrip(".;")
    return line if len(line) <= 400 else f"{line[:399]}…"
