"""What a group that is added at run time needs of the cluster: its claims, and their place in the controller's pod.

The claims are those the stack would declare. Of the controller's Deployment only the volumes and
mounts of such groups are named: whoever applies this owns these entries and no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nanoclaw_runtime.contract import claims, layout, names
from nanoclaw_runtime.contract.claims import Claim, Layout
from nanoclaw_runtime.contract.config import RegistrationStorage
from nanoclaw_runtime.manifests.volumes import volume_mount

Manifest = dict[str, Any]


def group_claim(claim: Claim, storage: RegistrationStorage) -> Manifest:
    """A claim of a group, as the stack declares one."""
    spec: Manifest = {
        "accessModes": [storage.access_modes[claim.purpose]],
        "resources": {"requests": {"storage": storage.sizes[claim.purpose]}},
    }
    if storage.storage_class is not None:
        spec["storageClassName"] = storage.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim.name,
            "labels": claims.claim_labels(claim),
            "annotations": claims.claim_annotations(claim),
        },
        "spec": spec,
    }


def controller_part(cut: Layout, folders: Iterable[str]) -> Manifest:
    """The part of the controller's Deployment that mounts these groups' claims; nothing but its name for none."""
    always = layout.controller_mounts(cut, ())
    mounts = [mount for mount in layout.controller_mounts(cut, folders) if mount not in always]
    document: Manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": names.CONTROLLER}}
    if not mounts:
        return document
    pod = {
        "containers": [
            {
                "name": names.CONTROLLER_CONTAINER,
                "volumeMounts": [
                    volume_mount(mount.claim, mount.path, mount.sub_path, read_only=mount.read_only) for mount in mounts
                ],
            }
        ],
        "volumes": [
            {"name": claim, "persistentVolumeClaim": {"claimName": claim}}
            for claim in dict.fromkeys(mount.claim for mount in mounts)
        ],
    }
    return document | {"spec": {"template": {"spec": pod}}}
