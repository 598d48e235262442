"""What admission would say to a stack's pods and claims: what to try, and what a refusal means.

Only what is tried is rendered here, nothing is sent: `prerequisites` sends it with `dryRun`. A pod is tried without our
labels and account, which guardrails keep for the controller's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from nanoclaw_runtime.cli.doctor import Finding, Object, failed, good, skipped
from nanoclaw_runtime.contract import labels, names, quantities
from nanoclaw_runtime.contract.config import AgentSettings, GroupSpec
from nanoclaw_runtime.contract.mounts import as_written, judge
from nanoclaw_runtime.contract.needs import ClaimNeed, Needs, SecretNeed, Workload
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.kube.errors import Invalid, KubeError
from nanoclaw_runtime.manifests.pod import agent_pod

Manifest = dict[str, Any]

_SESSION: Final = "doctor"
_PULL: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")

_REMEDIES: Final = (
    ("PodSecurity", "have the namespace's pod-security.kubernetes.io/enforce label changed, or use another namespace"),
    ("exceeded quota", "have the quota raised, or lower what the stack asks for"),
    ("failed quota", "have the quota raised, or lower what the stack asks for"),
    ("usage per", "fit the LimitRange: change the resources or sizes in the stack, or have it changed"),
    ("security context constraint", "set openshift.scc to a constraint the accounts may use"),
    ("PriorityClass", "correct scheduling.priorityClass, or have the class made"),
    ("RuntimeClass", "correct scheduling.runtimeClass, or have the class made"),
)
# By words of the API server's refusals; the first that is found counts.


def pods(needs: Needs) -> dict[str, Manifest]:
    """A pod of every shape the stack runs, by a name for it."""
    shapes = {f"agent of {group.folder}": (_agent(needs, group), needs.agents) for group in _representative(needs)}
    shapes |= {workload.name: (_own(needs, workload), workload) for workload in needs.workloads[1:]}
    return {name: _neutral(pod, needs, workload.node_folder) for name, (pod, workload) in shapes.items()}


def claims(needs: Needs, there: set[str]) -> dict[str, Manifest]:
    """Of the claims that are to be made the largest for each class and mode."""
    chosen: dict[tuple[str | None, str], ClaimNeed] = {}
    for claim in needs.claims:
        if claim.name in there or claim.adopted:
            continue
        key = (claim.storage_class, claim.access_mode)
        if key not in chosen or quantities.parse(claim.size) > quantities.parse(chosen[key].size):
            chosen[key] = claim
    return {f"claim {claim.name}": _claim(claim) for claim in chosen.values()}


def refusal(what: str, error: KubeError) -> Finding:
    """`error` is what the API server said to a dry run of `what`."""
    check, message = f"admission: {what}", error.message
    if isinstance(error, Invalid) and "dry run" in message:
        return skipped(check, f"a webhook cannot be tried ({message})")
    remedy = next((remedy for words, remedy in _REMEDIES if words in message), "ask who runs the cluster")
    return failed(check, message, remedy)


def quota(found: Sequence[Object], amounts: Mapping[str, Decimal], *, installed: bool) -> list[Finding]:
    """Whether the namespace's quotas hold the whole stack with all its sessions.

    What is used counts against it until the stack is installed; then most of that is the stack's own.
    """
    check, findings = "quota", []
    plain = [each for each in found if not each["spec"].get("scopes") and not each["spec"].get("scopeSelector")]
    for each in plain:
        status = each.get("status", {})
        for resource, hard in (status.get("hard") or each["spec"].get("hard", {})).items():
            used = Decimal(0) if installed else _number(status.get("used", {}).get(resource, "0"))
            left, needed = _number(hard), amounts.get(resource)
            if needed is not None and left is not None and left - (used or 0) < needed:
                findings.append(
                    failed(
                        check,
                        f"{each['metadata']['name']} leaves {quantities.readable(resource, left - (used or 0))} of "
                        f"{resource}, and the stack needs {quantities.readable(resource, needed)}",
                        "have it raised, or lower runtime.maxConcurrentSessions or the stack's sizes",
                    )
                )
    return findings or [good(check, f"{len(plain)} hold the whole stack" if plain else "there is none")]


def secret(wanted: SecretNeed, *, there: bool) -> Finding:
    check = f"secret {wanted.name}"
    if there:
        return good(check, f"there, for {wanted.setting}")
    return failed(check, f"missing, and {wanted.setting} names it", "have it made, or correct the stack")


def images(needs: Needs, found: Sequence[Object]) -> list[Finding]:
    """Whether nodes get the images, as the pods show that have run; nothing else can tell."""
    wanted = dict.fromkeys(workload.image for workload in needs.workloads)
    return [_image(image, [status for pod in found for status in _statuses(pod, image)]) for image in wanted]


def _image(image: str, statuses: Sequence[Object]) -> Finding:
    check = f"image {image}"
    waiting = [status["state"]["waiting"] for status in statuses if status.get("state", {}).get("waiting")]
    if refused := [each for each in waiting if each.get("reason") in _PULL]:
        evidence = f"{refused[0]['reason']} {refused[0].get('message', '')}".strip()
        return failed(check, evidence, "correct the reference, push the image, or name a pull secret in scheduling")
    if any(status.get("imageID") for status in statuses):
        return good(check, "a node has it")
    return skipped(check, "only a node can tell whether it gets it, and none has tried yet")


def _statuses(pod: Object, image: str) -> Iterator[Object]:
    """States of the containers that were to run the image; a state's own `image` may be spelled otherwise."""
    asked = {each["name"] for each in pod["spec"]["containers"] if each["image"] == image}
    return (each for each in pod.get("status", {}).get("containerStatuses", ()) if each["name"] in asked)


def _representative(needs: Needs) -> list[GroupSpec]:
    """A group, and those whose pods look different."""
    groups = needs.groups or (GroupSpec(folder=names.MAIN_FOLDER, name=names.MAIN_FOLDER),)
    return [groups[0], *(group for group in groups[1:] if group.container_config.additional_mounts)]


def _agent(needs: Needs, group: GroupSpec) -> Manifest:
    extra = judge(group, needs.config.mount_allowlist, pattern=needs.config.pattern, resolve=as_written).accepted
    return agent_pod(SessionPlan(SessionRef(group.folder, _SESSION), needs.config, extra))


def _own(needs: Needs, workload: Workload) -> Manifest:
    """Our own pods are secured as agents are; they differ in image, resources, nodes and volumes."""
    image = AgentSettings(image=workload.image, resources=workload.resources, scheduling=workload.scheduling)
    config = needs.config.model_copy(update={"agent": image})
    return agent_pod(SessionPlan(SessionRef(names.MAIN_FOLDER, _SESSION), config))


def _neutral(pod: Manifest, needs: Needs, folder: str | None) -> Manifest:
    spec = pod["spec"] | {"serviceAccountName": "default"}
    if spec.get("priorityClassName") in needs.made_priorities:  # not made yet
        del spec["priorityClassName"]
    scc = pod["metadata"]["annotations"].get(labels.REQUIRED_SCC)
    if folder is not None:
        spec["volumes"] = [*spec["volumes"], {"name": "node", "hostPath": {"path": folder, "type": "Directory"}}]
    metadata = {"name": "nanoclaw-doctor", "annotations": {labels.REQUIRED_SCC: scc} if scc else {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _claim(claim: ClaimNeed) -> Manifest:
    spec: Manifest = {"accessModes": [claim.access_mode], "resources": {"requests": {"storage": claim.size}}}
    if claim.storage_class is not None:
        spec["storageClassName"] = claim.storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim.name}, "spec": spec}


def _number(quantity: str) -> Decimal | None:
    """None for what is written in a way the contract does not know."""
    if quantity == "0":
        return Decimal(0)
    try:
        return quantities.parse(quantity)
    except ValueError:
        return None
