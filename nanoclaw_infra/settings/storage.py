"""Which storage the claims ask for, and which of them are made, kept or taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from nanoclaw_infra.settings.base import Settings
from nanoclaw_runtime.contract.claims import Purpose
from nanoclaw_runtime.contract.config import Folder, ObjectName
from nanoclaw_runtime.contract.quantities import Quantity

AccessMode = Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]

_SIZES: Final = {
    Purpose.GROUP: "2Gi",
    Purpose.IPC: "256Mi",
    Purpose.SESSIONS: "2Gi",
    Purpose.FOLDER: "4Gi",
    Purpose.PROJECT: "1Gi",
    Purpose.GLOBAL: "256Mi",
    Purpose.STORE: "2Gi",
    Purpose.DATA: "20Gi",
    Purpose.USAGE: "256Mi",
}

ONE_POD: Final = frozenset({Purpose.STORE, Purpose.USAGE})
"""Mounted by one pod of ours and nobody else: databases, which belong on block storage."""

ONE_NODE: Final = (
    "ebs.csi.aws.com",
    "pd.csi.storage.gke.io",
    "disk.csi.azure.com",
    "cinder.csi.openstack.org",
    "csi.vsphere.vmware.com",
    "dobs.csi.digitalocean.com",
    "csi.hetzner.cloud",
    "rancher.io/local-path",
    "topolvm.io",
    "lvms.topolvm.io",
    "openebs.io/local",
    "kubernetes.io/aws-ebs",
    "kubernetes.io/gce-pd",
    "kubernetes.io/azure-disk",
    "kubernetes.io/no-provisioner",
)


def only_one_node(provisioner: str) -> bool:
    """Whether volumes of this provisioner are known to be mounted by one node at a time: no ReadWriteMany."""
    return provisioner in ONE_NODE


class StorageClassSettings(Settings):
    """A StorageClass that the stack makes; cluster-wide, so one stack makes it and others name it."""

    name: ObjectName
    """For `storageClass` or `databaseStorageClass` to name."""
    provisioner: str = Field(min_length=1, max_length=253)
    """The CSI driver, as `kubectl get csidriver` lists it."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """What the driver is told; its documentation lists what there is."""
    mount_options: tuple[str, ...] = ()
    """Of every volume, as `mount -o` takes them."""
    reclaim_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of a volume whose claim is deleted."""
    binding: Literal["WaitForFirstConsumer", "Immediate"] = "WaitForFirstConsumer"
    """Whether a volume is made once a pod needs it, where that pod runs, or at once."""
    expandable: bool = True
    """Whether claims may grow."""


class StorageSettings(Settings):
    """Which storage the claims ask for."""

    storage_class: ObjectName | None = None
    """StorageClass of the groups' claims; the cluster's default when left out."""
    database_storage_class: ObjectName | None = None
    """StorageClass of the databases, which need block storage; as `storageClass` when left out."""
    make_class: StorageClassSettings | None = None
    """A StorageClass to make, for `storageClass` or `databaseStorageClass` to name."""
    access_mode: AccessMode = "ReadWriteMany"
    """Of the groups' claims, for good: no claim ever changes it, so it never follows from `runtime.transport`. With
    `volume` controller and agents mount them together, and ReadWriteOnce keeps all of them on one node; with `bridge`
    agents mount them alone, and ReadWriteOnce or ReadWriteOncePod will do."""
    access_modes: dict[Purpose, AccessMode] = Field(default_factory=dict)
    """Access mode by purpose, where it is another; ReadWriteOnce for databases unless said here."""
    sizes: dict[Purpose, Quantity] = Field(
        default_factory=dict, json_schema_extra={"default": {str(each): size for each, size in _SIZES.items()}}
    )
    """Size by purpose; what is left out gets its default."""
    group_sizes: dict[Folder, dict[Purpose, Quantity]] = Field(default_factory=dict)
    """Size by group and purpose, where a group needs another."""
    keep: tuple[Folder, ...] = ()
    """Folders of groups that are gone and whose claims stay declared, so that nothing of theirs is lost; with the
    pattern `nodelocal` of any group, for the way back."""
    adopt: tuple[ObjectName, ...] = ()
    """Claims that exist already and are taken over as they are, such as those a former stack left."""

    def size(self, purpose: Purpose, folder: str | None = None) -> str:
        own: Mapping[Purpose, str] = self.group_sizes.get(folder, {}) if folder is not None else {}
        return own.get(purpose) or self.sizes.get(purpose, _SIZES[purpose])

    def mode(self, purpose: Purpose) -> AccessMode:
        return self.access_modes.get(purpose, "ReadWriteOnce" if purpose in ONE_POD else self.access_mode)

    def class_of(self, purpose: Purpose) -> str | None:
        return (self.database_storage_class if purpose in ONE_POD else None) or self.storage_class

    @model_validator(mode="after")
    def _made_and_used(self) -> Self:
        made = self.make_class
        if made is not None and made.name not in {self.storage_class, self.database_storage_class}:
            raise ValueError(
                f"the StorageClass {made.name!r} is made and not used; name it in storageClass or databaseStorageClass"
            )
        return self
