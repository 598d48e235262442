"""Additional mounts that are certain never to be there, found before anything is declared.

The controller leaves a refused mount out and starts the agent without it; here who wrote both the mount and the
allowlist can still put it right. The rules are the contract's. Not here: whether a claim or ConfigMap exists.
"""

from __future__ import annotations

from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Platform
from nanoclaw_runtime.contract.mounts import as_written, judge


def mount_problems(runtime: ControllerConfig, groups: Groups, *, own_namespace: bool) -> list[str]:
    """A sentence for every mount that will be refused, and for an allowlist that opens what the platform forbids.

    `own_namespace` tells whether the stack makes the namespace, which then enforces Pod Security.
    """
    forbidden = _forbidden_by_platform(runtime, own_namespace=own_namespace)
    problems = [] if forbidden is None else [forbidden]
    for position, group in enumerate(groups.groups):
        judged = judge(group, runtime.mount_allowlist, pattern=runtime.pattern, resolve=as_written)
        field = f"nanoclaw:settings.groups[{position}].containerConfig.additionalMounts"
        problems += [f"{field}[{refused.position}]: {refused.reason}" for refused in judged.refused]
    return problems


def _forbidden_by_platform(runtime: ControllerConfig, *, own_namespace: bool) -> str | None:
    if runtime.mount_allowlist is None or not runtime.mount_allowlist.host_paths_on_nodes:
        return None
    field = "nanoclaw:settings.runtime.mountAllowlist.hostPathsOnNodes is true"
    if runtime.platform is Platform.OPENSHIFT:
        return f"{field}, but agents run under restricted-v2, which forbids folders of nodes; mount claims instead"
    if own_namespace:
        return (
            f"{field}, but the namespace this stack makes enforces Pod Security 'restricted', which forbids folders of "
            "nodes; mount claims, or set namespace.create to false and name a namespace that permits them"
        )
    return None
