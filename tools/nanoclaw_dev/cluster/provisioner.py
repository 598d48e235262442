"""The storage of the embedded cluster: a folder on this machine for every claim.

Runs as a process of its own beside the control plane. A claim of our class gets a volume when the
scheduler has chosen a node for its first pod; a volume whose claim is gone loses its folder.
ReadWriteOnce volumes belong to that node, ReadWriteMany ones can be mounted on all: the nodes
share one machine. No sizes are enforced, and raw block devices are not offered.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from kubernetes import client, config, watch
from nanoclaw_dev.cluster.render import PROVISIONER

WATCH = 60
# Seconds after which the server ends a watch, and we list again: what a watch missed is found then.
SILENCE = WATCH + 10
# Seconds without a byte after which the connection counts as dead.
RETRY = 0.5
# Seconds between attempts while the API server is away.

SELECTED = "volume.kubernetes.io/selected-node"
HOSTNAME = "kubernetes.io/hostname"

log = logging.getLogger("provisioner")


def folder_name(claim: dict[str, Any]) -> str:
    """Unique for ever, and readable: namespace, claim, and the claim's uid."""
    about = claim["metadata"]
    return f"{about['namespace']}_{about['name']}_{about['uid']}"


def volume_for(claim: dict[str, Any], storage_class: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The volume a claim should get now; None while it is not ours or waits for a pod."""
    about, spec = claim["metadata"], claim["spec"]
    node = about.get("annotations", {}).get(SELECTED)
    waits = storage_class["volumeBindingMode"] == "WaitForFirstConsumer" and node is None
    if storage_class["provisioner"] != PROVISIONER or waits or spec.get("volumeName"):
        return None
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return None
    shared = node is None or "ReadWriteMany" in spec["accessModes"]
    place = {"key": HOSTNAME, "operator": "Exists"} if shared else {"key": HOSTNAME, "operator": "In", "values": [node]}
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
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
        },
    }


def given_back(volume: dict[str, Any]) -> bool:
    """Ours, its claim is gone, and the class said to delete it then."""
    made_by = volume["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by")
    released = volume.get("status", {}).get("phase") == "Released"
    delete = volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    return bool(made_by == PROVISIONER and released and delete)


class Provisioner:
    """Follows claims and volumes of the cluster of one API client."""

    def __init__(self, api: Any, volumes: Path) -> None:
        # The client library has no types worth checking against: objects are plain dicts here.
        self._volumes = volumes
        self._core: Any = client.CoreV1Api(api)
        self._storage: Any = client.StorageV1Api(api)
        self._plain: Callable[[Any], Any] = api.sanitize_for_serialization
        self._watch: Any = watch

    def run(self) -> None:
        """Until the process is ended."""
        volumes = threading.Thread(
            target=self._follow, args=(self._core.list_persistent_volume, self._on_volume), name="volumes", daemon=True
        )
        volumes.start()
        self._follow(self._core.list_persistent_volume_claim_for_all_namespaces, self._on_claim)

    def _follow(self, listing: Callable[..., Any], handle: Callable[[dict[str, Any]], None]) -> None:
        """Handle every object now and whenever it changes, whatever happens to the API server."""
        while True:
            try:
                found = listing(_request_timeout=SILENCE)
                for item in found.items:
                    handle(self._plain(item))
                changes = self._watch.Watch().stream(
                    listing,
                    resource_version=found.metadata.resource_version,
                    timeout_seconds=WATCH,
                    _request_timeout=SILENCE,
                )
                for change in changes:
                    if change["type"] in {"ADDED", "MODIFIED"}:
                        handle(self._plain(change["object"]))
            except (client.ApiException, HTTPError, OSError) as error:
                log.warning("listing again after %s: %s", type(error).__name__, str(error).splitlines()[0])
                time.sleep(RETRY)

    def _on_claim(self, claim: dict[str, Any]) -> None:
        name = claim["spec"].get("storageClassName")
        if not name or claim.get("status", {}).get("phase") != "Pending":
            return
        try:
            found = self._storage.read_storage_class(name)
        except client.ApiException as error:
            if error.status == 404:
                return
            raise
        folder = self._volumes / folder_name(claim)
        volume = volume_for(claim, self._plain(found), folder)
        if volume is None:
            return
        # Nobody else may write until the kubelet hands the folder to the pod's fsGroup.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o770)
        try:
            self._core.create_persistent_volume(volume)
        except client.ApiException as error:
            if error.status != 409:
                raise
        else:
            log.info("made %s for %s/%s", folder, claim["metadata"]["namespace"], claim["metadata"]["name"])

    def _on_volume(self, volume: dict[str, Any]) -> None:
        if not given_back(volume):
            return
        folder = Path(volume["spec"]["local"]["path"])
        if folder.parent != self._volumes:
            log.error("left %s alone: it is not below %s", folder, self._volumes)
            return
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._core.delete_persistent_volume(volume["metadata"]["name"])
        except client.ApiException as error:
            if error.status != 404:
                raise
        else:
            log.info("removed %s", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--volumes", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    client_of: Any = config
    Provisioner(client_of.new_client_from_config(str(arguments.kubeconfig)), arguments.volumes).run()


if __name__ == "__main__":
    main()
