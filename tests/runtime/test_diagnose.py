"""What Kubernetes says about a pod, and the one sentence made of it."""

from __future__ import annotations

from typing import Any

import pytest

from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Forbidden,
    Invalid,
    KubeError,
    StreamLost,
    Target,
    Unavailable,
)
from nanoclaw_runtime.kube.resources import FORGOTTEN, Claim, Event, Pod, slim

TARGET = Target("create", "jobs", "chat", "nanoclaw-main-s1")


def pod(*, phase: str = "Pending", state: dict[str, Any] | None = None, deleted: bool = False, **status: Any) -> Pod:
    containers = [{"name": "agent", "state": state}] if state is not None else []
    metadata = {"name": "agent-1"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})
    document = {
        "metadata": metadata,
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }
    return slim(document, Pod)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def event(reason: str, message: str) -> Event:
    return slim({"reason": reason, "message": message}, Event)


def claim(phase: str) -> Claim:
    return slim(
        {"metadata": {"name": "claim-1"}, "spec": {"storageClassName": "fast"}, "status": {"phase": phase}}, Claim
    )


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": "exec: no such file"}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "it says why."}}


def unscheduled(message: str) -> dict[str, Any]:
    return {"conditions": [condition("PodScheduled", "False", "Unschedulable", message)]}


@pytest.mark.parametrize(
    ("seen", "kind", "words"),
    [
        pytest.param(pod(phase="Failed", state=ended(1)), FailureKind.EXIT, "code 1: last words", id="exit"),
        pytest.param(pod(phase="Failed", state=ended(137, "OOMKilled")), FailureKind.OUT_OF_MEMORY, "limit", id="oom"),
        pytest.param(pod(phase="Failed", state=ended(137)), FailureKind.EXIT, "killed", id="killed-inside"),
        pytest.param(pod(phase="Failed", state=ended(137), deleted=True), FailureKind.STOPPED, "killed", id="deleted"),
        pytest.param(
            pod(phase="Failed", state=ended(128, "StartError")), FailureKind.IMAGE, "no such file", id="start"
        ),
        pytest.param(
            pod(phase="Failed", state=ended(137, "ContainerStatusUnknown")),
            FailureKind.NODE_LOST,
            "n1",
            id="node-restart",
        ),
        pytest.param(pod(phase="Failed", state=ended(255, "Unknown")), FailureKind.NODE_LOST, "n1", id="node-rebooted"),
        pytest.param(
            pod(phase="Running", state=ended(255, FORGOTTEN)), FailureKind.STOPPED, "more than once", id="forgotten"
        ),
        pytest.param(
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            FailureKind.EVICTED,
            "low on resource: memory; ",
            id="evicted",
        ),
        pytest.param(
            pod(
                phase="Failed",
                state=ended(137),
                conditions=[condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempting")],
            ),
            FailureKind.EVICTED,
            "preempting",
            id="preempted",
        ),
        pytest.param(
            pod(conditions=[condition("DisruptionTarget", "True", "DeletionByTaintManager")], phase="Failed"),
            FailureKind.NODE_LOST,
            "node n1 does not answer",
            id="node-lost",
        ),
        pytest.param(
            pod(
                phase="Failed", reason="Terminated", message="Pod was terminated in response to imminent node shutdown."
            ),
            FailureKind.NODE_LOST,
            "shut down",
            id="node-shutdown",
        ),
        pytest.param(
            pod(phase="Failed", reason="DeadlineExceeded", state=ended(137)),
            FailureKind.STOPPED,
            "deadline",
            id="deadline",
        ),
        pytest.param(
            pod(phase="Failed", reason="Odd", message="who knows"), FailureKind.STOPPED, "who knows", id="other"
        ),
    ],
)
def test_a_bad_end_is_named(seen: Pod, kind: FailureKind, words: str) -> None:
    found = diagnose.ending(seen, "agent", "last words\n")
    assert found is not None
    assert found.kind is kind
    assert words in found.operator


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(pod(phase="Succeeded", state=ended(0, "Completed")), id="plain"),
        pytest.param(
            pod(
                phase="Failed",
                state=ended(0, "Completed"),
                conditions=[condition("DisruptionTarget", "True", "EvictionByEvictionAPI")],
            ),
            id="finished-while-being-drained",
        ),
    ],
)
def test_exit_code_0_is_a_good_end(seen: Pod) -> None:
    assert diagnose.ending(seen, "agent") is None


def test_of_stderr_only_the_end_is_told() -> None:
    found = diagnose.ending(pod(phase="Failed", state=ended(1)), "agent", "x" * 1000 + "the end")
    assert found is not None
    assert "the end" in found.operator
    assert len(found.operator) < 300


@pytest.mark.parametrize(
    ("seen", "events", "claims", "kind", "words"),
    [
        pytest.param(
            pod(**unscheduled("0/3 nodes: Insufficient cpu.")),
            [],
            [claim("Pending")],
            FailureKind.UNSCHEDULABLE,
            "Insufficient cpu; ",
            id="no-room-though-claims-wait",
        ),
        pytest.param(
            pod(**unscheduled('persistentvolumeclaim "x" not found')),
            [],
            [],
            FailureKind.VOLUME,
            '"x" not found',
            id="scheduler-misses-claim",
        ),
        pytest.param(
            pod(**unscheduled("binding volumes: timed out")), [], [], FailureKind.VOLUME, "timed out", id="binding"
        ),
        pytest.param(
            pod(**unscheduled("whatever")), [], [claim("")], FailureKind.VOLUME, "does not exist", id="no-claim"
        ),
        pytest.param(pod(), [], [claim("Lost")], FailureKind.VOLUME, "backup", id="claim-lost"),
        pytest.param(pod(), [], [claim("Pending")], FailureKind.VOLUME, "fast", id="claim-pending"),
        pytest.param(
            pod(),
            [event("FailedAttachVolume", "Multi-Attach error.")],
            [claim("Bound")],
            FailureKind.VOLUME,
            "Multi-Attach error; ",
            id="attach-volume",
        ),
        pytest.param(pod(state=waiting("ImagePullBackOff")), [], [], FailureKind.IMAGE, "it says why; ", id="image"),
        pytest.param(
            pod(state=waiting("CreateContainerConfigError")), [], [], FailureKind.REFUSED, "it says why", id="user"
        ),
        pytest.param(
            pod(state=waiting("ContainerCreating")),
            [event("Pulling", "Pulling image.")],
            [],
            FailureKind.START_TIMEOUT,
            "last event: Pulling: Pulling image; ",
            id="slow",
        ),
        pytest.param(
            None, [event("FailedCreate", "exceeded quota: none.")], [], FailureKind.QUOTA, "quota", id="quota"
        ),
        pytest.param(
            None, [event("FailedCreate", "violates PodSecurity.")], [], FailureKind.REFUSED, "PodSecurity", id="psa"
        ),
        pytest.param(
            None, [event("Other", "")], [], FailureKind.START_TIMEOUT, "Job controller", id="no-pod-no-reason"
        ),
    ],
)
def test_a_start_that_is_late_is_explained(
    seen: Pod | None, events: list[Event], claims: list[Claim], kind: FailureKind, words: str
) -> None:
    found = diagnose.late_start("job-1", seen, "agent", events, claims)
    assert found.kind is kind
    assert words in found.operator


def test_only_what_waiting_never_heals_is_hopeless() -> None:
    assert diagnose.hopeless_start(pod(state=waiting("ContainerCreating")), "agent") is None
    assert diagnose.hopeless_start(pod(), "agent") is None
    found = diagnose.hopeless_start(pod(state=waiting("ErrImageNeverPull")), "agent")
    assert found is not None
    assert found.kind is FailureKind.IMAGE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(Forbidden(TARGET, "exceeded quota: none"), FailureKind.QUOTA, id="quota"),
        pytest.param(Forbidden(TARGET, "may not"), FailureKind.REFUSED, id="rbac"),
        pytest.param(Invalid(TARGET, "wrong"), FailureKind.REFUSED, id="invalid"),
        pytest.param(AlreadyExists(TARGET, "there"), FailureKind.REFUSED, id="name-taken"),
        pytest.param(Unavailable(TARGET, "down"), FailureKind.API, id="down"),
        pytest.param(DeadlineExceeded(TARGET, "slow"), FailureKind.API, id="slow"),
    ],
)
def test_refused_calls_are_told_apart(error: KubeError, kind: FailureKind) -> None:
    assert diagnose.api_failure(error).kind is kind


def everything_said() -> list[Diagnosis]:
    lost = StreamLost(TARGET, "cut")
    return [
        diagnose.api_failure(Unavailable(TARGET, "down")),
        diagnose.attach_failure("agent-1", lost),
        diagnose.vanished("job-1", None),
        diagnose.undead(pod(deleted=True)),
        diagnose.late_start("job-1", pod(), "agent"),
        diagnose.late_start("job-1", None, "agent"),
    ]


@pytest.mark.parametrize("found", everything_said(), ids=lambda found: found.kind.value)
def test_the_chat_hears_nothing_of_the_infrastructure(found: Diagnosis) -> None:
    for word in ("pod", "job", "node", "agent-1", "Kubernetes", "API"):
        assert word not in found.chat
    assert "\n" not in found.operator
