"""What an agent's pod mounts: what is its group's, what all groups see, and what the allowlist names.

A mount is judged by the name of its volume, so a volume of ours is called like the claim that it is or, on a node's
disk, stands for. The container that carries files sees the group's claims whole, and it alone its token.
"""

from __future__ import annotations

from typing import Final

from nanoclaw_infra.guardrails.admission import SPEC, VOLUMES, Rule, each, every_mount
from nanoclaw_infra.guardrails.expressions import (
    GROUP,
    folders_by_volume,
    listed,
    own_claims,
    own_places,
    shared_place,
    text,
)
from nanoclaw_runtime.contract import bridge, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import ControllerConfig, Pattern
from nanoclaw_runtime.contract.mounts import as_written

_OURS: Final = f"startsWith({text(names.OWN_PREFIX)})"
_PLACE: Final = "(mount.name + '/' + mount.?subPath.orValue('') + '/')"


def variables(config: ControllerConfig) -> dict[str, str]:
    """What the rules look up, in CEL."""
    on_node = config.pattern is Pattern.NODELOCAL
    layout = Layout.PER_TYPE if on_node else config.layout
    return {
        "claims": listed(()) if on_node else own_claims(layout, config.transport),
        "places": own_places(layout),
        "shared": shared_place(layout),
    } | ({"folders": folders_by_volume(config.node_root)} if on_node else {})


def volumes(config: ControllerConfig) -> tuple[Rule, ...]:
    """Which volumes a pod has, and which of its containers mounts which of them; needs `variables`."""
    allowlist = config.mount_allowlist
    claims = [source.name for source in allowlist.claims] if allowlist else []
    config_maps = [source.name for source in allowlist.config_maps] if allowlist else []
    claimed, claim = f"{VOLUMES}.filter(each, has(each.persistentVolumeClaim))", "each.persistentVolumeClaim.claimName"
    token = f" || {_token()}" if config.bridged else ""
    return (
        Rule(
            f"{VOLUMES}.all(each, has(each.emptyDir) || has(each.persistentVolumeClaim) || has(each.configMap) || "
            f"has(each.hostPath){token}) && {each('each.?volumeDevices.orValue([]).size() == 0')}",
            "agents mount claims, ConfigMaps and scratch space, and no Secret, token or device; secrets go over stdin",
            found="'volumes ' + " + f"{VOLUMES}.map(each, each.name).join(', ')",
        ),
        Rule(
            f"{claimed}.all(each, {claim} in variables.claims || !{claim}.{_OURS} && {claim} in {listed(claims)})",
            "agents mount the claims of their own group and no other; add yours to "
            "nanoclaw:settings.runtime.mountAllowlist.claims",
            found=f"'group ' + {GROUP} + ', claims ' + {claimed}.map(each, {claim}).join(', ')",
        ),
        Rule(
            # So that a mount can be judged by the name of its volume.
            f"{claimed}.all(each, !{claim}.{_OURS} || each.name == {claim})",
            "the volume of a claim of ours is called like the claim; let the controller make the pod",
        ),
        *_mounts(config),
        Rule(
            f"{VOLUMES}.all(each, !has(each.configMap) || each.configMap.?name.orValue('') in {listed(config_maps)})",
            "agents mount no ConfigMap that is not allowed; add it to "
            "nanoclaw:settings.runtime.mountAllowlist.configMaps",
        ),
        _node_folders(config),
    )


def _mounts(config: ControllerConfig) -> tuple[Rule, ...]:
    # What it makes the folders of, before an agent has any.
    whole = f"each.name == {text(names.BRIDGE)} && mount.name in variables.claims || " if config.bridged else ""
    rules = (
        Rule(
            every_mount(
                f"!mount.name.{_OURS} || {whole}!has(mount.subPathExpr) && (variables.places.exists(own, "
                f"{_PLACE}.startsWith(own)) || {_PLACE}.startsWith(variables.shared))"
            ),
            "agents see the folders of their own group, and of the others none; let the controller make the pod",
            found=f"'group ' + {GROUP} + ', mounts ' + {SPEC}.containers.map(each, each.?volumeMounts.orValue([]).map("
            "mount, mount.name + '/' + mount.?subPath.orValue('')).join(', ')).join(', ')",
        ),
        Rule(
            every_mount(f"!{_PLACE}.startsWith(variables.shared) || mount.?readOnly.orValue(false)"),
            "what all groups see is mounted read-only; set readOnly to true",
        ),
    )
    return (*rules, _carried()) if config.bridged else rules


def _token() -> str:
    """Whether the volume `each` is a token that is good for the bridge and for nothing else."""
    only = " && ".join(
        (
            "has(source.serviceAccountToken)",
            f"source.serviceAccountToken.?audience.orValue('') == {text(names.BRIDGE_AUDIENCE)}",
            *(f"!has(source.{other})" for other in ("secret", "configMap", "downwardAPI", "clusterTrustBundle")),
        )
    )
    return (
        f"has(each.projected) && each.name == {text(bridge.TOKEN_VOLUME)} && "
        f"each.projected.?sources.orValue([]).all(source, {only})"
    )


def _carried() -> Rule:
    own = listed((bridge.TOKEN_VOLUME, bridge.OWN_VOLUME))
    return Rule(
        every_mount(
            f"each.name == {text(names.BRIDGE)} || !(mount.name in {own}) && "
            f"(mount.name != {text(bridge.CARRIED_VOLUME)} || mount.?readOnly.orValue(false))"
        ),
        f"the token and the ledger are the container {names.BRIDGE}'s alone, and agents only read what it carried; let "
        "the controller make the pod",
    )


def _node_folders(config: ControllerConfig) -> Rule:
    allowlist = config.mount_allowlist
    roots = [
        f"{root.rstrip('/')}/"
        for one in (allowlist.allowed_roots if allowlist and allowlist.host_paths_on_nodes else ())
        if (root := as_written(one.path)) is not None
    ]
    path = "(each.hostPath.path + '/')"
    allowed = f"{listed(roots)}.exists(root, root != '' && {path}.startsWith(root))"
    if config.pattern is Pattern.NODELOCAL:
        root = text(f"{config.node_root}/")
        beside = f"!{path}.startsWith({root}) && !{root}.startsWith({path}) && {allowed}"
        mine = "variables.folders[?each.name].orValue('') == each.hostPath.path"
        allowed = f"(each.name.{_OURS} ? {mine} : {beside})"
    return Rule(
        f"{VOLUMES}.all(each, !has(each.hostPath) || {allowed})",
        "agents mount no folder of a node but those of their own group with the pattern 'nodelocal'; add yours to "
        "nanoclaw:settings.runtime.mountAllowlist.allowedRoots, and set hostPathsOnNodes to true",
        found=f"'folders ' + {VOLUMES}.filter(each, has(each.hostPath)).map(each, each.hostPath.path).join(', ')",
    )
