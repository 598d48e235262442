"""The storage of the embedded cluster: a folder on this machine for every claim.

Runs as a process of its own beside the control plane. A claim of our class gets a volume when the
scheduler has chosen a node for its first pod; a volume whose claim is gone loses its folder.
ReadWriteOnce volumes belong to that node, as a disk in it would; ReadWriteMany ones can be mounted
on all: the nodes share one machine. Those of the detachable class are `disks`, which go where their
pod goes and which one node has at a time. No sizes are enforced, and raw block devices are not offered.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from nanoclaw_dev.cluster import disks
from nanoclaw_dev.cluster.api import Api
from nanoclaw_dev.cluster.follow import Manifest, follow, instance_of_arguments
from nanoclaw_dev.cluster.render import DETACHABLE, PROVISIONER
from nanoclaw_dev.errors import SetupError

CLAIMS, VOLUMES = "/api/v1/persistentvolumeclaims", "/api/v1/persistentvolumes"

SELECTED = "volume.kubernetes.io/selected-node"
HOSTNAME = "kubernetes.io/hostname"

log = logging.getLogger("provisioner")


def folder_name(claim: Manifest) -> str:
    """Unique for ever, and readable: namespace, claim, and the claim's uid."""
    about = claim["metadata"]
    return f"{about['namespace']}_{about['name']}_{about['uid']}"


def volume_for(claim: Manifest, storage_class: Manifest, folder: Path) -> Manifest | None:
    """The volume a claim should get now; None while it is not ours or waits for a pod."""
    about, spec = claim["metadata"], claim["spec"]
    node = about.get("annotations", {}).get(SELECTED)
    waits = storage_class["volumeBindingMode"] == "WaitForFirstConsumer" and node is None
    if storage_class["provisioner"] != PROVISIONER or waits or spec.get("volumeName"):
        return None
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return None
    source = disks.source(folder) if _detachable(storage_class) else _local(folder, node, spec["accessModes"])
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{about['uid']}",
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "storageClassName": storage_class["metadata"]["name"],
            "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": about["namespace"],
                "name": about["name"],
                "uid": about["uid"],
            },
            **source,
        },
    }


def _local(folder: Path, node: str | None, modes: Sequence[str]) -> Manifest:
    anywhere = node is None or "ReadWriteMany" in modes
    place = (
        {"key": HOSTNAME, "operator": "Exists"} if anywhere else {"key": HOSTNAME, "operator": "In", "values": [node]}
    )
    return {
        "local": {"path": str(folder)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
    }


def _detachable(storage_class: Manifest) -> bool:
    return bool((storage_class.get("parameters") or {}).get(DETACHABLE) == "true")


def given_back(volume: Manifest) -> bool:
    """Ours, its claim is gone, and the class said to delete it then."""
    made_by = volume["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by")
    released = volume.get("status", {}).get("phase") == "Released"
    delete = volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    return bool(made_by == PROVISIONER and released and delete)


class Provisioner:
    """Follows claims and volumes of one cluster."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api, self._folder = api, folder

    def run(self) -> NoReturn:
        """Until the process is ended."""
        volumes = threading.Thread(target=self._follow, args=(VOLUMES, self._on_volume), name="volumes", daemon=True)
        volumes.start()
        self._follow(CLAIMS, self._on_claim)

    def _follow(self, path: str, handle: Callable[[Manifest], None]) -> NoReturn:
        def listed(objects: list[Manifest]) -> None:
            trouble = None
            for each in objects:
                try:
                    handle(each)
                except (SetupError, OSError) as error:  # of one: the others are not kept waiting for it
                    trouble = error
            if trouble is not None:
                raise trouble

        follow(self._api, path, listed=listed, changed=handle, gone=lambda _: None)

    def _on_claim(self, claim: Manifest) -> None:
        name = claim["spec"].get("storageClassName")
        if not name or claim.get("status", {}).get("phase") != "Pending":
            return
        found = self._api.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
        if found is None:
            return
        folder = self._folder / folder_name(claim)
        volume = volume_for(claim, found, folder)
        if volume is None:
            return
        # Nobody else may write until the kubelet hands the folder to the pod's fsGroup.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o770)
        if self._api.create(VOLUMES, volume):
            log.info("made %s for %s/%s", folder, claim["metadata"]["namespace"], claim["metadata"]["name"])

    def _on_volume(self, volume: Manifest) -> None:
        if not given_back(volume):
            return
        folder = disks.folder_of(volume) or Path(volume["spec"]["local"]["path"])
        if folder.parent != self._folder:
            log.error("left %s alone: it is not below %s", folder, self._folder)
            return
        shutil.rmtree(folder, ignore_errors=True)
        if self._api.delete(f"{VOLUMES}/{volume['metadata']['name']}"):
            log.info("removed %s", folder)


def main() -> None:
    instance = instance_of_arguments(__doc__)
    Provisioner(Api.administrator(instance, instance.bridge_address), instance.volumes).run()


if __name__ == "__main__":
    main()
