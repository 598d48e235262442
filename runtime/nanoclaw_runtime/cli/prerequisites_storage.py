"""What StorageClasses and claims that exist mean for the claims of a stack.

What a driver can do is in no API; here is what is known of the common ones. Pure functions, as `doctor` has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from nanoclaw_runtime.cli import doctor_volumes
from nanoclaw_runtime.cli.doctor import Finding, Object, doubtful, failed, good
from nanoclaw_runtime.cli.doctor_volumes import Volume
from nanoclaw_runtime.contract.needs import ClaimNeed, Needs
from nanoclaw_runtime.domain.storage_advice import RWOP, RWX

_DEFAULT: Final = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_BLOCK_SUFFIXES: Final = ("rbd.csi.ceph.com",)
# Operators put a name of their own in front.
_SHARED: Final = (
    "efs.csi.aws.com",
    "fsx.csi.aws.com",
    "file.csi.azure.com",
    "kubernetes.io/azure-file",
    "filestore.csi.storage.gke.io",
    "nfs.csi.k8s.io",
    "smb.csi.k8s.io",
    "nfs.manila.csi.openstack.org",
    "cephfs.manila.csi.openstack.org",
    "cluster.local/nfs-subdir-external-provisioner",
    "driver.longhorn.io",
)
_SHARED_SUFFIXES: Final = ("cephfs.csi.ceph.com", "nfs.csi.ceph.com")
_BY_HAND: Final = "kubernetes.io/no-provisioner"
_NETWORK_FILES: Final = "its databases would lie on a network file system, where SQLite is slow and may lose writes"


def classes(needs: Needs, found: Sequence[Object], claims: Sequence[Object]) -> list[Finding]:
    """A finding for every StorageClass the stack's claims name, or several when it has several troubles.

    `claims` are those of the namespace: one that is bound shows that its class can do what it asked for.
    """
    by_name = {each["metadata"]["name"]: each for each in found}
    if needs.made_class is not None:
        by_name.setdefault(needs.made_class["metadata"]["name"], needs.made_class)
    bound = {each["metadata"]["name"] for each in claims if each.get("status", {}).get("phase") == "Bound"}
    findings: list[Finding] = []
    for name in dict.fromkeys(claim.storage_class for claim in needs.claims):
        asking = [claim for claim in needs.claims if claim.storage_class == name and not claim.adopted]
        if asking:
            findings += _class(needs, name, by_name, asking, bound)
    return findings


def _class(
    needs: Needs, name: str | None, by_name: Mapping[str, Object], asking: Sequence[ClaimNeed], bound: set[str]
) -> list[Finding]:
    others = f"there are {', '.join(sorted(by_name))}" if by_name else "there are none at all"
    setting = "storage.databaseStorageClass" if all(claim.database for claim in asking) else "storage.storageClass"
    if name is not None:
        if name not in by_name:
            return [failed(_check(name), f"missing; {others}", f"correct {setting}, or have it made")]
        return _judged(needs, by_name[name], asking, bound)
    defaults = [each for each in by_name.values() if _is_default(each)]
    if not defaults:
        return [failed("storage class", f"none is the default; {others}", f"name one in {setting}")]
    # Of several, the cluster takes the one that was made last.
    chosen = max(defaults, key=lambda each: each["metadata"].get("creationTimestamp", ""))
    several = ", ".join(sorted(each["metadata"]["name"] for each in defaults))
    more = (
        [doubtful("storage class", f"several are the default: {several}", f"name one in {setting}")]
        if len(defaults) > 1
        else []
    )
    return more + _judged(needs, chosen, asking, bound)


def _judged(needs: Needs, found: Object, asking: Sequence[ClaimNeed], bound: set[str]) -> list[Finding]:
    check = _check(found["metadata"]["name"])
    modes = ", ".join(sorted({claim.access_mode for claim in asking}))
    return list(_troubles(check, needs, found, asking, bound)) or [
        good(check, f"{found['provisioner']}, for {len(asking)} claims ({modes})")
    ]


def _troubles(
    check: str, needs: Needs, found: Object, asking: Sequence[ClaimNeed], bound: set[str]
) -> Iterator[Finding]:
    provisioner = found["provisioner"]
    shared = [claim for claim in asking if claim.access_mode == RWX]
    block = _is_block(provisioner, needs.one_node_provisioners)
    if shared and block:
        yield failed(
            check,
            f"{provisioner} makes volumes of one node, and {shared[0].name} asks for ReadWriteMany: it would never "
            "be bound, or never be mounted twice",
            "name a class of a shared file system, or set storage.accessMode to ReadWriteOnce and runtime.placement "
            "to controller-node",
        )
    elif shared and not _is_shared(provisioner) and not {claim.name for claim in shared} & bound:
        yield doubtful(
            check,
            f"whether {provisioner} can do ReadWriteMany is not known here",
            "ask its documentation, or make a small claim and two pods on two nodes that mount it",
        )
    if _is_files(provisioner) and any(claim.database for claim in asking):
        yield doubtful(check, _NETWORK_FILES, "name a class of block storage in storage.databaseStorageClass")
    if provisioner.startswith("kubernetes.io/") and any(claim.access_mode == RWOP for claim in asking):
        yield doubtful(check, f"only CSI drivers can do {RWOP}, and {provisioner} is none", "use a CSI driver")
    if provisioner == _BY_HAND:
        yield doubtful(check, "its volumes are made by hand", f"have {len(asking)} of them before `pulumi up`")
    if not found.get("allowVolumeExpansion"):
        yield doubtful(check, "its claims cannot grow", "set allowVolumeExpansion, or choose sizes that last")
    if needs.protects_data and found.get("reclaimPolicy", "Delete") == "Delete":
        yield doubtful(
            check,
            "reclaim policy Delete: whoever deletes a claim deletes its data",
            "use a class with reclaimPolicy Retain",
        )
    if block and found.get("volumeBindingMode", "Immediate") == "Immediate" and provisioner != _BY_HAND:
        yield doubtful(
            check,
            "binds at once: the claims of one pod may come to lie in different zones",
            "use a class with volumeBindingMode WaitForFirstConsumer",
        )


def planned(needs: Needs, found: Sequence[Object]) -> list[Volume]:
    """A volume of every class and access mode that is to be made, as its class would make it."""
    made = [needs.made_class] if needs.made_class is not None else []
    by_name = {each["metadata"]["name"]: each for each in (*made, *found)}
    default = next((name for name, each in by_name.items() if _is_default(each)), None)
    chosen = {
        (name, claim.access_mode): claim
        for claim in reversed(needs.claims)
        if not claim.adopted and (name := claim.storage_class or default) in by_name
    }
    return [
        doctor_volumes.planned(claim.name, mode, by_name[name])
        for (name, mode), claim in reversed(chosen.items())
        if name is not None
    ]


def existing(needs: Needs, found: Sequence[Object], *, installed: bool) -> list[Finding]:
    """Claims with the stack's names that are there already; `installed` tells whether a controller is.

    `pulumi up` takes them over without a word, or fails at what cannot be changed.
    """
    check, there = "claims", {each["metadata"]["name"]: each for each in found}
    missing = [claim.name for claim in needs.claims if claim.adopted and claim.name not in there]
    findings = [
        failed(check, f"storage.adopt names {name}, which is not there", "remove it from storage.adopt")
        for name in missing
    ]
    left = []
    for claim in needs.claims:
        if claim.adopted or claim.name not in there:
            continue
        if differences := list(_differences(claim, there[claim.name]["spec"])):
            findings.append(_unlike(check, claim.name, differences))
        elif not (installed and _is_ours(there[claim.name])):
            left.append(claim.name)
    if left:
        findings.append(
            doubtful(
                check,
                f"already there, and taken over with their data: {', '.join(left)}",
                "name them in storage.adopt if that is meant; otherwise delete them, or choose another namespace",
            )
        )
    return findings or [
        good(check, f"{len(there.keys() & {c.name for c in needs.claims})} of {len(needs.claims)} made")
    ]


def _unlike(check: str, name: str, differences: Sequence[str]) -> Finding:
    return failed(
        check,
        f"{name} is already there with {' and '.join(differences)}; `pulumi up` cannot change that",
        "name it in storage.adopt, or correct the stack",
    )


def _differences(claim: ClaimNeed, spec: Mapping[str, Any]) -> Iterator[str]:
    if (modes := spec.get("accessModes", [])) != [claim.access_mode]:
        yield f"{', '.join(modes)}, not {claim.access_mode}"
    has = spec.get("storageClassName")
    if claim.storage_class is not None and has != claim.storage_class:
        yield f"the class {has}, not {claim.storage_class}"


def _is_ours(claim: Object) -> bool:
    """Whether Pulumi or the controller made it."""
    managers: Iterable[Mapping[str, Any]] = claim["metadata"].get("managedFields", ())
    return any(each.get("manager", "").startswith(("pulumi-kubernetes", "nanoclaw")) for each in managers)


def _check(name: str) -> str:
    return f"storage class {name}"


def _is_default(found: Object) -> bool:
    annotations = found["metadata"].get("annotations", {})
    return any(annotations.get(key) == "true" for key in _DEFAULT)


def _is_block(provisioner: str, one_node: Iterable[str]) -> bool:
    return provisioner in one_node or provisioner.endswith(_BLOCK_SUFFIXES)


def _is_shared(provisioner: str) -> bool:
    return provisioner in _SHARED or provisioner.endswith(_SHARED_SUFFIXES)


def _is_files(provisioner: str) -> bool:
    """Longhorn serves block storage to a single node."""
    return _is_shared(provisioner) and provisioner != "driver.longhorn.io"
