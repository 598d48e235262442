"""What a look at the cluster means: pure functions from what was found to findings with a remedy.

Looking is `examine`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from nanoclaw_runtime.api.schemas import Readiness
from nanoclaw_runtime.contract import labels, names

OLDEST: Final = (1, 24)
"""The oldest Kubernetes the installation is meant for."""
RECENT: Final = timedelta(minutes=15)
_SHOWN_EVENTS: Final = 5
_SHOWN_CHARACTERS: Final = 100

Object = Mapping[str, Any]


class Verdict(StrEnum):
    GOOD = "ok"
    DOUBTFUL = "warning"
    BAD = "failed"
    SKIPPED = "skipped"


class Finding(BaseModel):
    """One line of the report."""

    model_config = ConfigDict(frozen=True)

    check: str
    verdict: Verdict
    evidence: str
    remedy: str = ""


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.verdict is not Verdict.BAD for finding in findings)


def good(check: str, evidence: str) -> Finding:
    return Finding(check=check, verdict=Verdict.GOOD, evidence=evidence)


def doubtful(check: str, evidence: str, remedy: str) -> Finding:
    return Finding(check=check, verdict=Verdict.DOUBTFUL, evidence=evidence, remedy=remedy)


def failed(check: str, evidence: str, remedy: str) -> Finding:
    """For what is wrong, and for what could not even be looked at."""
    return Finding(check=check, verdict=Verdict.BAD, evidence=evidence, remedy=remedy)


def skipped(check: str, because: str) -> Finding:
    return Finding(check=check, verdict=Verdict.SKIPPED, evidence=f"not looked at: {because}")


def numbers_of(version: str) -> tuple[int, int] | None:
    """Major and minor of a version such as `v1.36.3+build`; None when it has none."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return None if found is None else (int(found[1]), int(found[2]))


def version(answer: str) -> Finding:
    """`answer` is the API server's gitVersion, such as `v1.36.3+build`."""
    check, oldest = "API server", ".".join(str(part) for part in OLDEST)
    numbers = numbers_of(answer)
    if numbers is None:
        return doubtful(check, f"reachable, version {answer!r}", f"make sure that it is Kubernetes {oldest} or newer")
    if numbers < OLDEST:
        return failed(check, f"version {answer}", f"use a cluster of version {oldest} or newer")
    return good(check, f"reachable, version {answer}")


def deployment(found: Object) -> Finding:
    check = "controller"
    status, wanted = found.get("status", {}), found.get("spec", {}).get("replicas", 1)
    available = status.get("availableReplicas", 0)
    if not wanted:
        return failed(check, "scaled to 0", f"kubectl scale deployment {names.CONTROLLER} --replicas=1")
    if available >= wanted:
        return good(check, f"{available} of {wanted} available")
    reasons = [
        condition.get("message", "") for condition in status.get("conditions", ()) if condition["status"] == "False"
    ]
    evidence = "; ".join([f"{available} of {wanted} available", *filter(None, reasons)])
    return failed(check, evidence, "look at the pods below, and at `nanoclaw logs`")


def daemon_set(found: Object) -> Finding:
    """The controller with the pattern `nodelocal`."""
    check, status = "controller", found.get("status", {})
    wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    if not wanted:
        return failed(check, "no node may run it", "look at controller.scheduling and the labels of the nodes")
    if available >= wanted:
        return good(check, f"on {available} of {wanted} nodes")
    return failed(check, f"on {available} of {wanted} nodes", "look at the pods below, and at `nanoclaw logs`")


def pods(found: Sequence[Object]) -> Finding:
    """Every pod that waits or failed, with its reason. An agent's trouble is retried, the controller's is not."""
    check, remedy = "pods", "kubectl describe the pod; its events name the reason"
    if not found:
        return failed(check, "there are none", "run `pulumi up`; the controller's pod belongs to it")
    troubles = {pod["metadata"]["name"]: trouble(pod) for pod in found}
    evidence = "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items() if trouble)
    if not evidence:
        return good(check, f"{len(found)} without trouble")
    if any(_is_controller(pod) and trouble(pod) for pod in found):
        return failed(check, evidence, remedy)
    return doubtful(check, evidence, remedy)


def claims(found: Sequence[Object]) -> Finding:
    check = "volumes"
    phases = {claim["metadata"]["name"]: claim.get("status", {}).get("phase", "Pending") for claim in found}
    lost = [name for name, phase in phases.items() if phase == "Lost"]
    pending = [name for name, phase in phases.items() if phase == "Pending"]
    if lost:
        return failed(check, f"lost: {', '.join(lost)}", "their volumes are gone; restore them from a backup")
    if pending:
        return doubtful(
            check,
            f"not bound: {', '.join(pending)}",
            "fine while no pod has used them; otherwise check the storage class and `kubectl describe pvc`",
        )
    if not found:
        return failed(check, "there are no claims", "run `pulumi up`")
    return good(check, f"{len(found)} bound")


def rights(allowed: Mapping[str, bool]) -> Finding:
    """What this command line needs of the caller; the controller's rights are its own business."""
    check = "your rights"
    missing = [what for what, may in allowed.items() if not may]
    if missing:
        return failed(check, f"you may not {', '.join(missing)}", "ask for these rights in the namespace")
    return good(check, f"all {len(allowed)} that this command line needs")


def readiness(report: Readiness) -> list[Finding]:
    """The controller's own checks, one finding each."""
    return [
        good(f"controller: {check.name}", check.detail)
        if check.ok
        else failed(f"controller: {check.name}", check.detail, "`nanoclaw logs` has the reason")
        for check in report.checks
    ]


def warnings(found: Sequence[Object], now: datetime) -> Finding:
    """The installation's warning events of the last minutes, the newest first."""
    check = "events"
    recent = [(moment, event) for event in found if (moment := _moment(event)) and now - moment <= RECENT]
    recent.sort(key=lambda one: one[0], reverse=True)
    if not recent:
        return good(check, f"no warnings in the last {RECENT.seconds // 60} minutes")
    # One of each reason: every pod of a cluster may complain about the same thing.
    reasons = {event.get("reason", ""): event for _, event in reversed(recent)}
    told = [
        f"{reason} ({event['involvedObject'].get('name', '')}): {_cut(event.get('message', ''))}"
        for reason, event in list(reversed(reasons.items()))[:_SHOWN_EVENTS]
    ]
    more = f" and {len(reasons) - _SHOWN_EVENTS} more" if len(reasons) > _SHOWN_EVENTS else ""
    return doubtful(check, "; ".join(told) + more, "kubectl get events, when something above has failed")


def _cut(message: str) -> str:
    return message if len(message) <= _SHOWN_CHARACTERS else f"{message[:_SHOWN_CHARACTERS].rstrip()}…"


def _is_controller(pod: Object) -> bool:
    found: object = pod["metadata"].get("labels", {}).get(labels.COMPONENT)
    return found == labels.CONTROLLER


def trouble(pod: Object) -> str:
    """Why a pod waits or failed; empty for one without trouble."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        return f"failed {status.get('reason', '')} {status.get('message', '')}".strip()
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
            return f"{waiting.get('reason', 'waits')} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message', '')}"
    return ""


def _moment(event: Object) -> datetime | None:
    told = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    return datetime.fromisoformat(told) if told else None
