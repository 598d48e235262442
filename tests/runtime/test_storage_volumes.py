"""What the doctor makes of the drivers of volumes: late messages, and owners nobody sets."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.cli import doctor_volumes
from nanoclaw_runtime.cli import prerequisites_storage as storage
from nanoclaw_runtime.cli.doctor import Verdict
from nanoclaw_runtime.cli.doctor_volumes import Volume
from nanoclaw_runtime.cli.examine import settings_name
from nanoclaw_runtime.contract.config import (
    CONFIG_DIR,
    AgentSettings,
    ControllerConfig,
    Pattern,
    Platform,
    Transport,
)
from nanoclaw_runtime.contract.layout import Layout
from tests.runtime.test_prerequisites import claim, needs, storage_class

RWX, RWO = "ReadWriteMany", "ReadWriteOnce"
GOOD, DOUBTFUL, SKIPPED = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.SKIPPED


def config(**settings):
    return ControllerConfig(agent=AgentSettings(image="registry.example/agent:1"), **settings)


def volume(driver="nfs.csi.k8s.io", *options, mode=RWX, fs_type="", name="nanoclaw-ipc-main"):
    return Volume(name, driver, (mode,), options, fs_type)


def csi(name="nfs.csi.k8s.io", policy="File"):
    return {"metadata": {"name": name}, "spec": {"fsGroupPolicy": policy} if policy else {}}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(volume(), DOUBTFUL, id="nfs"),
        pytest.param(volume("nfs"), DOUBTFUL, id="the-old-nfs-source"),
        pytest.param(volume("efs.csi.aws.com", "tls"), DOUBTFUL, id="efs"),
        pytest.param(volume("rook-ceph.nfs.csi.ceph.com"), DOUBTFUL, id="nfs-of-ceph"),
        pytest.param(volume("driver.longhorn.io"), DOUBTFUL, id="longhorn-shared"),
        pytest.param(volume("driver.longhorn.io", mode=RWO), GOOD, id="longhorn-block"),
        pytest.param(volume("nfs.csi.k8s.io", "nfsvers=4.1", "noac"), GOOD, id="no-attribute-cache"),
        pytest.param(volume("nfs.csi.k8s.io", "nfsvers=4.1,actimeo=1"), GOOD, id="a-second-of-cache"),
        pytest.param(volume("nfs.csi.k8s.io", "actimeo=30"), DOUBTFUL, id="half-a-minute-of-cache"),
        pytest.param(volume("nfs.csi.k8s.io", "acdirmin=0", "acdirmax=1"), GOOD, id="a-second-for-folders"),
        pytest.param(volume("nfs.csi.k8s.io", "lookupcache=none"), DOUBTFUL, id="listings-are-cached-all-the-same"),
        pytest.param(volume("files.example", "nfsvers=4.1"), DOUBTFUL, id="nfs-by-its-options"),
        pytest.param(volume("file.csi.azure.com"), GOOD, id="smb-as-linux-has-it"),
        pytest.param(volume("file.csi.azure.com", "mfsymlinks", "actimeo=30"), DOUBTFUL, id="smb-as-aks-has-it"),
        pytest.param(volume("openshift-storage.cephfs.csi.ceph.com"), GOOD, id="cephfs"),
        pytest.param(volume("files.example"), GOOD, id="unknown"),
        pytest.param(volume("nfs.csi.k8s.io", mode=RWO), GOOD, id="one-node"),
    ],
)
def test_a_client_that_keeps_folders_is_a_doubt(found, verdict):
    (finding,) = doctor_volumes.caching(config(), [found])
    assert finding.verdict is verdict
    if verdict is DOUBTFUL:
        assert found.claim in finding.evidence
        assert {"transport: bridge", "nanoclaw bench storage"} <= {
            words for words in ("transport: bridge", "nanoclaw bench storage") if words in finding.remedy
        }


@pytest.mark.parametrize("settings", [{"transport": Transport.BRIDGE}, {"pattern": Pattern.NODELOCAL}], ids=str)
def test_nothing_is_late_where_no_message_passes_by_a_volume(settings):
    (finding,) = doctor_volumes.caching(config(**settings), [volume()])
    assert finding.verdict is GOOD


def test_one_line_tells_of_all_claims_of_a_driver():
    found = [volume(name=f"nanoclaw-ipc-{name}") for name in "abcde"]
    (finding,) = doctor_volumes.caching(config(), found)
    assert "nanoclaw-ipc-a, nanoclaw-ipc-b, nanoclaw-ipc-c and 2 more" in finding.evidence


@pytest.mark.parametrize(
    ("found", "drivers", "settings", "verdict", "words"),
    [
        pytest.param(volume("hostPath"), [], {}, DOUBTFUL, "hostPath", id="host-path"),
        pytest.param(volume("nfs"), [], {}, DOUBTFUL, "old nfs source", id="the-old-nfs-source"),
        pytest.param(volume(), [csi(policy="File")], {}, GOOD, "", id="the-driver-lets-it"),
        pytest.param(volume(), [csi(policy="None")], {}, DOUBTFUL, "fsGroupPolicy None", id="the-driver-forbids-it"),
        pytest.param(volume(), [csi(policy=None)], {}, DOUBTFUL, "ReadWriteMany", id="the-default-leaves-rwx-out"),
        pytest.param(volume(mode=RWO), [csi(policy=None)], {}, DOUBTFUL, "leaves out", id="the-default-without-type"),
        pytest.param(volume(mode=RWO, fs_type="ext4"), [csi(policy=None)], {}, GOOD, "", id="the-default-on-block"),
        pytest.param(volume("local"), [], {}, GOOD, "", id="local-is-given"),
        pytest.param(volume("files.example"), [], {}, GOOD, "", id="unknown"),
        pytest.param(volume("hostPath"), [], {"fix_permissions": True}, GOOD, "gives", id="set-and-needed"),
        pytest.param(volume("local"), [], {"fix_permissions": True}, DOUBTFUL, "begins as root", id="set-for-nothing"),
    ],
)
def test_whether_volumes_need_an_owner_and_get_one(found, drivers, settings, verdict, words):
    (finding,) = doctor_volumes.owners(config(**settings), [found], drivers)
    assert finding.verdict is verdict
    assert words in finding.evidence


def test_the_setting_is_named_where_it_helps_and_only_there():
    def remedy(found, drivers=(), **settings):
        (finding,) = doctor_volumes.owners(config(**settings), [found], drivers)
        return finding.remedy

    assert "runtime.fixPermissions: true" in remedy(volume("hostPath"))
    assert "fixPermissions" not in remedy(volume("hostPath"), platform=Platform.OPENSHIFT)
    smb = remedy(volume("smb.csi.k8s.io"), [csi("smb.csi.k8s.io", "None")])
    assert "fixPermissions" not in smb
    assert "uid=1000" in smb


def test_without_a_volume_nothing_is_said():
    assert [doctor_volumes.caching(config(), [])[0].verdict, doctor_volumes.owners(config(), [], [])[0].verdict] == [
        SKIPPED,
        SKIPPED,
    ]


def test_bound_claims_are_known_by_their_volumes():
    claims = [
        {"metadata": {"name": "a"}, "spec": {"volumeName": "pv-a"}},
        {"metadata": {"name": "b"}, "spec": {"volumeName": "pv-b"}},
        {"metadata": {"name": "pending"}, "spec": {}},
    ]
    volumes = [
        {
            "metadata": {"name": "pv-a"},
            "spec": {"csi": {"driver": "x.csi", "fsType": "ext4"}, "accessModes": [RWO], "mountOptions": ["noatime"]},
        },
        {"metadata": {"name": "pv-b"}, "spec": {"hostPath": {"path": "/x"}, "accessModes": [RWX]}},
    ]
    assert doctor_volumes.bound(claims, volumes) == [
        Volume("a", "x.csi", (RWO,), ("noatime",), "ext4"),
        Volume("b", "hostPath", (RWX,)),
    ]


def test_a_stack_is_judged_by_what_its_classes_would_make():
    found = [storage_class(mountOptions=["nfsvers=4.1"]), storage_class("block", "ebs.csi.aws.com", default=True)]
    asked = (claim("a"), claim("b"), claim("db", None, RWO, database=True), claim("kept", adopted=True))
    assert storage.planned(needs(claims=asked), found) == [
        Volume("a", "nfs.csi.k8s.io", (RWX,), ("nfsvers=4.1",)),
        Volume("db", "ebs.csi.aws.com", (RWO,), (), "ext4"),
    ]


def test_the_settings_are_found_by_where_the_controller_mounts_them():
    pod = {
        "containers": [{"name": "controller", "volumeMounts": [{"name": "settings", "mountPath": CONFIG_DIR}]}],
        "volumes": [{"name": "other", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "nanoclaw-x1"}}],
    }
    assert settings_name(pod) == "nanoclaw-x1"
    with pytest.raises(ValueError, match="no settings"):
        settings_name({"containers": [{"name": "controller"}]})


def test_every_layout_can_be_examined():
    for layout in Layout:
        assert doctor_volumes.caching(config(layout=layout), [volume("local")])[0].verdict is GOOD
