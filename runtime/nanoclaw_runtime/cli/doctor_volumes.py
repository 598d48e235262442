"""What the drivers of volumes mean for messages and for who may write: pure functions, as `doctor` has them.

Two doubts, both about things no API tells: whether a client keeps attributes of folders, so that another node's file
stays unseen for a while; and whether the kubelet gives a volume to the pods' group. Drivers change: what is said here
is a reason to measure (`nanoclaw bench storage`), never a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nanoclaw_runtime.cli.doctor import Finding, Object, doubtful, good, skipped
from nanoclaw_runtime.contract.config import ControllerConfig, Platform
from nanoclaw_runtime.domain.storage_advice import RWO, RWX

CACHING: Final = "attribute caching"
OWNERS: Final = "owners of volumes"

_SOURCES: Final = ("nfs", "hostPath", "local", "cephfs", "azureFile", "glusterfs")
# Of a PersistentVolume without a CSI driver.
_NFS: Final = (
    "nfs",
    "nfs.csi.k8s.io",
    "efs.csi.aws.com",
    "fsx.openzfs.csi.aws.com",
    "filestore.csi.storage.gke.io",
    "nfs.manila.csi.openstack.org",
    "driver.longhorn.io",  # ReadWriteMany only
    "cluster.local/nfs-subdir-external-provisioner",
)
_NFS_SUFFIXES: Final = ("nfs.csi.ceph.com",)
_SMB: Final = ("smb.csi.k8s.io", "file.csi.azure.com", "azureFile", "kubernetes.io/azure-file")
_SHORT: Final = 1.0
"""Seconds of caching that are no worse than an agent's own poll of half a second."""
_NFS_DEFAULT: Final = 60.0
_SMB_DEFAULT: Final = 1.0
# Seconds for which Linux keeps attributes of a folder at most, unless mount options say otherwise.

_MEASURE: Final = "`nanoclaw bench storage` measures it"


@dataclass(frozen=True)
class Volume:
    """What is known of the volume of a claim, or of the one that a class would make."""

    claim: str
    driver: str
    """CSI driver, or the kind of an older source, such as `nfs`."""
    modes: tuple[str, ...]
    options: tuple[str, ...] = ()
    """As they are given to `mount`."""
    fs_type: str = ""


def bound(claims: Iterable[Object], volumes: Iterable[Object]) -> list[Volume]:
    """Those of the claims that have one."""
    by_name = {each["metadata"]["name"]: each["spec"] for each in volumes}
    return [
        _volume(claim["metadata"]["name"], spec)
        for claim in claims
        if (spec := by_name.get(claim["spec"].get("volumeName", ""))) is not None
    ]


def _volume(claim: str, spec: Mapping[str, Any]) -> Volume:
    csi = spec.get("csi") or {}
    source = next((each for each in _SOURCES if each in spec), "")
    return Volume(
        claim,
        csi.get("driver") or source,
        tuple(spec.get("accessModes", ())),
        tuple(spec.get("mountOptions", ())),
        csi.get("fsType", ""),
    )


def planned(name: str, mode: str, storage_class: Object) -> Volume:
    """What the class would make for a claim; its file system is not known before."""
    options = tuple(storage_class.get("mountOptions") or ())
    return Volume(name, storage_class["provisioner"], (mode,), options, "" if mode == RWX else "ext4")


def caching(config: ControllerConfig, volumes: Sequence[Volume]) -> list[Finding]:
    """Whether messages would wait for a client's cache, and what to do."""
    if config.bridged or not config.pattern.has_claims:
        return [good(CACHING, "no messages pass by volumes of several nodes")]
    if not volumes:
        return [skipped(CACHING, "no volume is known yet")]
    late: dict[str, tuple[str, list[str]]] = {}
    for volume in volumes:
        if RWX in volume.modes and (why := _late(volume)):
            late.setdefault(volume.driver, (why, []))[1].append(volume.claim)
    return [
        doubtful(
            CACHING,
            f"{driver} ({_named(claims)}): {why}",
            f"{_options(driver)}, or runtime.transport: bridge; {_MEASURE}",
        )
        for driver, (why, claims) in late.items()
    ] or [good(CACHING, _no_cache(volumes))]


def _no_cache(volumes: Sequence[Volume]) -> str:
    drivers = ", ".join(sorted({volume.driver or "unknown" for volume in volumes}))
    return f"none is known to delay messages on {drivers}; {_MEASURE}"


def _late(volume: Volume) -> str:
    """Why another node's files are seen late; empty when they are not, as far as is known."""
    nfs = volume.driver in _NFS or volume.driver.endswith(_NFS_SUFFIXES) or "nfsvers" in _settings(volume)
    if not nfs and volume.driver not in _SMB:
        return ""
    seconds = _kept(volume, _NFS_DEFAULT if nfs else _SMB_DEFAULT)
    if seconds <= _SHORT:
        return ""
    kind = "NFS" if nfs else "SMB"
    return f"{kind} clients keep folders for up to {seconds:.0f} s, and messages may stay unseen so long"


def _kept(volume: Volume, default: float) -> float:
    """Seconds for which a client keeps what it knows of a folder, at most."""
    settings = _settings(volume)
    if "noac" in settings or settings.get("cache") == "none":
        return 0.0
    for name in ("actimeo", "acdirmax"):
        if settings.get(name, "").isdigit():
            return float(settings[name])
    return default


def _settings(volume: Volume) -> dict[str, str]:
    """Mount options by name; one entry may have several."""
    words = [word for option in volume.options for word in option.split(",")]
    return {name: value for name, _, value in (word.strip().partition("=") for word in words)}


def _options(driver: str) -> str:
    option = "actimeo=1" if driver in _SMB else "actimeo=1 or noac"
    return f"mount with {option} (mountOptions of the class, for new volumes)"


def owners(config: ControllerConfig, volumes: Sequence[Volume], drivers: Sequence[Object]) -> list[Finding]:
    """Which claims the kubelet does not give to the pods' group, and whether `fixPermissions` says what is so."""
    if not config.pattern.has_claims or not volumes:
        return [skipped(OWNERS, "no volume is known yet")]
    policies = {each["metadata"]["name"]: (each.get("spec") or {}).get("fsGroupPolicy") for each in drivers}
    ignoring = {volume.claim: why for volume in volumes if (why := _ignores(volume, policies))}
    if config.fix_permissions:
        if ignoring:
            return [good(OWNERS, f"runtime.fixPermissions gives {_named(list(ignoring))} to the agents")]
        return [
            doubtful(
                OWNERS,
                "runtime.fixPermissions is set, and no volume is known to need it: every agent's pod begins as root",
                "set it to false",
            )
        ]
    found = list(_unowned(config, volumes, ignoring))
    return found or [good(OWNERS, f"the kubelet gives {len(volumes)} volumes to the pods' group")]


def _unowned(config: ControllerConfig, volumes: Sequence[Volume], ignoring: Mapping[str, str]) -> Iterator[Finding]:
    by_why: dict[tuple[str, str], list[str]] = {}
    for volume in volumes:
        if volume.claim in ignoring:
            by_why.setdefault((volume.driver, ignoring[volume.claim]), []).append(volume.claim)
    for (driver, why), claims in by_why.items():
        evidence = f"{_named(claims)}: {why}, so uid 1000 may not be able to write"
        yield doubtful(OWNERS, evidence, _owner_remedy(config, driver))


def _owner_remedy(config: ControllerConfig, driver: str) -> str:
    if driver in _SMB:
        return "mount with uid=1000,gid=1000 (mountOptions of the class): owners cannot be changed there"
    by_class = "have the driver make folders for the pods' user (uid and gid in the parameters of the class)"
    if config.platform is Platform.OPENSHIFT:
        return by_class
    return f"if agents cannot write, runtime.fixPermissions: true, or {by_class}"


def _ignores(volume: Volume, policies: Mapping[str, str | None]) -> str:
    """Why the kubelet leaves the owner of this volume alone; empty when it does not, or nobody knows."""
    if volume.driver == "hostPath":
        return "fsGroup is never applied to hostPath"
    if volume.driver == "nfs":
        return "fsGroup is never applied to volumes of the old nfs source"
    if volume.driver not in policies:
        return ""
    policy = policies[volume.driver] or "ReadWriteOnceWithFSType"
    if policy == "None":
        return f"{volume.driver} has fsGroupPolicy None"
    if policy == "ReadWriteOnceWithFSType" and (RWO not in volume.modes or not volume.fs_type):
        return f"{volume.driver} has fsGroupPolicy {policy}, which leaves out {' and '.join(volume.modes)} volumes"
    return ""


_SHOWN: Final = 3


def _named(claims: Sequence[str]) -> str:
    more = f" and {len(claims) - _SHOWN} more" if len(claims) > _SHOWN else ""
    return ", ".join(claims[:_SHOWN]) + more
