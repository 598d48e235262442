"""Policies about one object by itself. Each yields a sentence for every violation: object, field, remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nanoclaw_infra.policies.declared import Declared
from nanoclaw_runtime.contract import labels, names, ownership
from nanoclaw_runtime.contract.permissions import BRIDGE_RULES

SCC_ROLE: Final = "system:openshift:scc:"

_READS_ALL: Final = frozenset({"list", "watch"})


def requests_and_limits(declared: Declared) -> Iterator[str]:
    for place, container in declared.containers():
        resources = container.get("resources") or {}
        for side in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                if resource not in (resources.get(side) or {}):
                    yield declared.says(f"{place}.resources.{side}.{resource}", "is missing; say how much it may use")


def no_wildcard_rights(declared: Declared) -> Iterator[str]:
    if declared.kind not in {"Role", "ClusterRole"}:
        return
    for position, rule in enumerate(declared.manifest.get("rules") or []):
        place = f"rules[{position}]"
        for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
            if "*" in (rule.get(field) or []):
                yield declared.says(f"{place}.{field}", "is '*'; list what is needed")
        verbs = set(rule.get("verbs") or [])
        if "secrets" in (rule.get("resources") or []) and (verbs & _READS_ALL or not rule.get("resourceNames")):
            yield declared.says(
                place, "reads every secret of the namespace; write `get` and resourceNames, or mount it"
            )


def no_cluster_rights(declared: Declared) -> Iterator[str]:
    if declared.kind in {"ClusterRole", "ClusterRoleBinding"} and not _reviews_tokens(declared):
        yield declared.says("kind", "reaches beyond the namespace; write a Role or a RoleBinding")
    role = declared.manifest.get("roleRef") or {}
    theirs = role.get("kind") == "ClusterRole" and not str(role.get("name", "")).startswith(SCC_ROLE)
    if declared.kind == "RoleBinding" and theirs:
        yield declared.says("roleRef", f"is the ClusterRole {role.get('name')}, which is not ours; bind a Role")


def _reviews_tokens(declared: Declared) -> bool:
    """Whether it is the bridge's one right beyond the namespace, and that alone."""
    if not declared.name.startswith(f"{names.TOKEN_REVIEWER}-"):
        return False
    if declared.kind == "ClusterRoleBinding":
        return bool((declared.manifest.get("roleRef") or {}).get("name") == declared.name)
    wanted = [
        {"apiGroups": [rule.api_group], "resources": [*rule.resources], "verbs": [*rule.verbs]} for rule in BRIDGE_RULES
    ]
    return bool(declared.manifest.get("rules") == wanted)


def never_privileged(declared: Declared) -> Iterator[str]:
    pod = declared.pod
    if pod is None:
        return
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield declared.says(field, "is true; take it away")
    if not (pod.get("securityContext") or {}).get("runAsNonRoot"):
        yield declared.says("securityContext.runAsNonRoot", "is not true; set it")
    for place, container in declared.containers():
        security, field = container.get("securityContext") or {}, f"{place}.securityContext"
        if security.get("privileged"):
            yield declared.says(f"{field}.privileged", "is true; take it away")
        if security.get("allowPrivilegeEscalation") is not False:
            yield declared.says(f"{field}.allowPrivilegeEscalation", "is not false; set it to false")
        capabilities = security.get("capabilities") or {}
        # What gives volumes to their user is root for that moment, and its stack asked for it.
        needed = set(ownership.CAPABILITIES) if container.get("name") == ownership.NAME else set()
        if set(capabilities.get("add") or []) - needed or "ALL" not in (capabilities.get("drop") or []):
            yield declared.says(f"{field}.capabilities", "leaves some; drop ALL and add none")


def no_door_to_the_outside(declared: Declared) -> Iterator[str]:
    kind = (declared.manifest.get("spec") or {}).get("type", "ClusterIP")
    if declared.kind == "Service" and kind in {"LoadBalancer", "NodePort"}:
        yield declared.says("spec.type", f"is {kind}; write ClusterIP, and reach it with `nanoclaw` or `kubectl`")


def tokens_for_the_controller_alone(declared: Declared) -> Iterator[str]:
    if declared.kind == "ServiceAccount" and declared.manifest.get("automountServiceAccountToken") is not False:
        yield declared.says("automountServiceAccountToken", "is not false; set it to false, a pod may ask for a token")
    pod = declared.pod
    if pod is None or declared.component == labels.CONTROLLER:
        return
    if pod.get("automountServiceAccountToken") is not False:
        yield declared.says("spec.template.spec.automountServiceAccountToken", "is not false; set it to false")
