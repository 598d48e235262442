"""Volumes of a pod and where they appear; the additional mounts of a group among them.

Each additional source is one volume, however often it is mounted, and is named for its kind and itself, so that none,
whatever it is called, gets the name of another volume of the pod. Whether a mount is allowed was decided before
(`contract.mounts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.mounts import ExtraMount


def volume_mount(volume: str, path: str, sub_path: str | None, *, read_only: bool) -> dict[str, Any]:
    """One entry of a container's `volumeMounts`."""
    made: dict[str, Any] = {"name": volume, "mountPath": path}
    if sub_path:
        made["subPath"] = sub_path
    if read_only:
        made["readOnly"] = True
    return made


def claim_volumes(claims: Iterable[str]) -> list[dict[str, Any]]:
    """Entries of a pod's `volumes`, each named as its claim."""
    return [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]


def extra_volumes(extra: Iterable[ExtraMount]) -> list[dict[str, Any]]:
    """Entries of a pod's `volumes`. A claim, ConfigMap or folder that is missing keeps the pod from starting."""
    sources = dict(_volume(mount) for mount in extra)
    return [{"name": name} | source for name, source in sources.items()]


def extra_volume_mounts(extra: Iterable[ExtraMount]) -> list[dict[str, Any]]:
    return [volume_mount(_volume(mount)[0], mount.path, mount.sub_path, read_only=mount.read_only) for mount in extra]


def _volume(mount: ExtraMount) -> tuple[str, dict[str, Any]]:
    if mount.claim is not None:
        return f"claim-{names.slug(mount.claim)}", {"persistentVolumeClaim": {"claimName": mount.claim}}
    if mount.config_map is not None:
        return f"config-{names.slug(mount.config_map)}", {"configMap": {"name": mount.config_map}}
    path = mount.host_path or ""
    # Without a type, the node would make a folder that is missing, as root.
    return f"host-{names.slug(path)}", {"hostPath": {"path": path, "type": "Directory"}}
