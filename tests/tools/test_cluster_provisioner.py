from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nanoclaw_dev.cluster import disks, follow, render
from nanoclaw_dev.cluster.provisioner import CLAIMS, SELECTED, Provisioner, folder_name, given_back, volume_for
from nanoclaw_dev.errors import SetupError

FOLDER = Path("/volumes/one")
USUAL, DETACHABLE = render.storage_classes()


def claim(*modes, node="node-1", **spec):
    about = {"namespace": "team", "name": "data", "uid": "1-2", "annotations": {SELECTED: node} if node else {}}
    wanted = {"accessModes": list(modes), "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": about, "spec": wanted | spec}


def term(volume):
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    return expression


def test_a_volume_for_one_node_stays_there():
    volume = volume_for(claim("ReadWriteOnce"), USUAL, FOLDER)
    assert term(volume) == {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}
    assert volume["spec"]["claimRef"]["uid"] == "1-2"
    assert volume["spec"]["local"]["path"] == str(FOLDER)
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}


def test_a_volume_for_many_nodes_can_be_mounted_on_all():
    volume = volume_for(claim("ReadWriteMany"), USUAL, FOLDER)
    assert term(volume) == {"key": "kubernetes.io/hostname", "operator": "Exists"}


def test_a_volume_that_can_be_detached_is_a_disk_and_bound_to_no_node():
    volume = volume_for(claim("ReadWriteOnce"), DETACHABLE, FOLDER)
    assert disks.folder_of(volume) == FOLDER
    assert "nodeAffinity" not in volume["spec"]
    assert volume["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert volume["spec"]["storageClassName"] == render.DETACHABLE_CLASS


def test_a_class_that_does_not_wait_is_served_before_any_pod():
    at_once = USUAL | {"volumeBindingMode": "Immediate"}
    assert term(volume_for(claim("ReadWriteOnce", node=None), at_once, FOLDER))["operator"] == "Exists"


@pytest.mark.parametrize(
    ("wanted", "storage_class"),
    [
        pytest.param(claim("ReadWriteOnce", node=None), USUAL, id="no pod yet"),
        pytest.param(claim("ReadWriteOnce"), USUAL | {"provisioner": "other"}, id="another's class"),
        pytest.param(claim("ReadWriteOnce", volumeName="chosen"), USUAL, id="a volume was chosen"),
        pytest.param(claim("ReadWriteOnce", volumeMode="Block"), USUAL, id="a raw device"),
    ],
)
def test_a_claim_that_is_not_for_us_gets_nothing(wanted, storage_class):
    assert volume_for(wanted, storage_class, FOLDER) is None


@pytest.mark.parametrize(
    ("phase", "policy", "by", "expected"),
    [
        ("Released", "Delete", render.PROVISIONER, True),
        ("Bound", "Delete", render.PROVISIONER, False),
        ("Released", "Retain", render.PROVISIONER, False),
        ("Released", "Delete", "another", False),
    ],
)
def test_only_what_is_ours_and_released_is_deleted(phase, policy, by, expected):
    volume = {
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": by}},
        "spec": {"persistentVolumeReclaimPolicy": policy},
        "status": {"phase": phase},
    }
    assert given_back(volume) is expected


class Api:
    """As much of it as claims take. The first volume for the claim `refused` is refused."""

    def __init__(self, *claims):
        self._claims, self.asked, self.watched = claims, [], threading.Event()

    def list(self, path):
        return {"metadata": {"resourceVersion": "7"}, "items": self._claims if path == CLAIMS else ()}

    def watch(self, path, *_, **__):
        if path == CLAIMS:
            self.watched.set()
        threading.Event().wait()

    def get(self, _path):
        return USUAL

    def create(self, _path, volume):
        self.asked.append(volume["spec"]["claimRef"]["name"])
        if self.asked == ["refused"]:
            raise SetupError("the API server refused it")
        return True


def test_a_claim_that_cannot_be_served_keeps_no_other_waiting_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "RETRY", 0)
    refused, other = (
        {**claim("ReadWriteOnce", storageClassName="ours"), "status": {"phase": "Pending"}} for _ in range(2)
    )
    refused["metadata"] = refused["metadata"] | {"name": "refused"}
    api = Api(refused, other)
    threading.Thread(target=Provisioner(api, tmp_path).run, name="claims", daemon=True).start()
    assert api.watched.wait(60)
    assert api.asked == ["refused", "data", "refused", "data"]


def test_claims_of_the_same_name_get_different_folders():
    again = claim("ReadWriteOnce")
    again["metadata"]["uid"] = "3-4"
    assert folder_name(again) != folder_name(claim("ReadWriteOnce"))
