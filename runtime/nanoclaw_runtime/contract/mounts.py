"""Which additional mounts a group's agents get: NanoClaw's rules for a host's folders, and the like for a cluster's.

One function judges, for both halves: while a stack is previewed, where a refused mount stops it, and before each
session, where it is left out and the agent starts without. Files are looked at only by the `resolve` that is passed
in. On a cluster nobody but the kubelet sees a node's files, so there a path is judged as it is written: a link on the
node may lead anywhere, which is why `hostPathsOnNodes` is off unless a stack says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from nanoclaw_runtime.contract.config import AdditionalMount, AllowedSource, GroupSpec, MountAllowlist, Pattern

EXTRA: Final = PurePosixPath("/workspace/extra")
"""Where additional mounts appear in an agent."""

ALWAYS_BLOCKED: Final = (
    ".ssh",
    ".gnupg",
    ".gpg",
    ".aws",
    ".azure",
    ".gcloud",
    ".kube",
    ".docker",
    "credentials",
    ".env",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "id_rsa",
    "id_ed25519",
    "private_key",
    ".secret",
)
"""Refused wherever one is part of a path, whatever an allowlist says."""

Resolve = Callable[[str], str | None]
"""The real path behind a written one, `~` expanded and links followed; None when there is nothing."""

_UNSAYABLE: Final = re.compile("[:\x00-\x1f\x7f\ud800-\udfff]")
# An engine's mount option ends at a colon, and nothing prints the others.


@dataclass(frozen=True)
class ExtraMount:
    """One additional mount as the agent gets it; exactly one of the three sources is set."""

    path: str
    """Absolute, in the container."""
    read_only: bool = True
    host_path: str | None = None
    """The real path on the host; as written where that is a node."""
    claim: str | None = None
    config_map: str | None = None
    sub_path: str | None = None
    """Folder of the claim."""


@dataclass(frozen=True)
class RefusedMount:
    """One additional mount the agent does not get."""

    position: int
    """In the group's list."""
    mount: AdditionalMount
    reason: str
    """What is wrong and what to do instead, for who wrote it."""


@dataclass(frozen=True)
class Judgement:
    """What became of a group's additional mounts, each list in the order they were written."""

    accepted: tuple[ExtraMount, ...] = ()
    refused: tuple[RefusedMount, ...] = ()


class _Refused(Exception):
    """Why a mount is left out."""


def as_written(path: str) -> str | None:
    """The `Resolve` of a node: an absolute path without `..`, tidied; None for every other."""
    written = PurePosixPath(path)
    if not written.is_absolute() or ".." in written.parts:
        return None
    return str(PurePosixPath("/", *written.parts[1:]))


def judge(
    group: GroupSpec, allowlist: MountAllowlist | None, *, pattern: Pattern, resolve: Resolve, tree: str | None = None
) -> Judgement:
    """Which of the group's additional mounts its agents get, and why they do not get the others.

    Of two mounts at one place, or one inside the other, the first is kept. `resolve` is asked on a Docker
    host only. `tree` is the real path of the installation there: nothing in it or around it is mounted.
    """
    mounts = group.container_config.additional_mounts
    if allowlist is None:
        reason = "there is no mount allowlist; name what may be mounted in runtime.mountAllowlist"
        return Judgement(refused=tuple(RefusedMount(position, mount, reason) for position, mount in enumerate(mounts)))
    on_node = pattern is not Pattern.DOCKER
    rules = _Rules(allowlist, pattern, as_written if on_node else resolve, group.is_main, None if on_node else tree)
    accepted: list[ExtraMount] = []
    refused: list[RefusedMount] = []
    for position, mount in enumerate(mounts):
        try:
            made = rules.accept(mount)
            _check_free(made.path, accepted)
            accepted.append(made)
        except _Refused as refusal:
            refused.append(RefusedMount(position, mount, str(refusal)))
    return Judgement(tuple(accepted), tuple(refused))


@dataclass(frozen=True)
class _Rules:
    """What one group may mount in one place."""

    allowlist: MountAllowlist
    pattern: Pattern
    resolve: Resolve
    is_main: bool
    tree: str | None

    def accept(self, mount: AdditionalMount) -> ExtraMount:
        path = _container_path(mount)
        if mount.host_path is not None:
            return self._folder(mount, mount.host_path, path)
        if self.pattern is Pattern.DOCKER:
            raise _Refused("claims and ConfigMaps are a cluster's; on a Docker host write a hostPath")
        if mount.claim is not None:
            claim = _allowed(mount.claim, self.allowlist.claims, "claim", "claims")
            read_only = self._read_only(mount, claim.allow_read_write)
            return ExtraMount(path, read_only, claim=claim.name, sub_path=self._sub_path(mount))
        config_map = _allowed(mount.config_map or "", self.allowlist.config_maps, "ConfigMap", "configMaps")
        return ExtraMount(path, config_map=config_map.name)

    def _folder(self, mount: AdditionalMount, written: str, path: str) -> ExtraMount:
        if self.pattern is not Pattern.DOCKER:
            _check_node_path(written, permitted=self.allowlist.host_paths_on_nodes)
        real = self.resolve(written)
        if real is None:
            raise _Refused(f"hostPath {written!r} does not exist; write the path of a folder that does")
        self._check_words("hostPath", real)
        if self.tree is not None and _overlap(real, self.tree):
            raise _Refused(
                f"hostPath {real!r} has other groups' folders and the database; mount one outside {self.tree}"
            )
        for root in self.allowlist.allowed_roots:
            base = self.resolve(root.path)
            if base is not None and PurePosixPath(real).is_relative_to(base):
                return ExtraMount(path, self._read_only(mount, root.allow_read_write), host_path=real)
        raise _Refused(f"hostPath {real!r} is below no allowed root; add one to mountAllowlist.allowedRoots")

    def _sub_path(self, mount: AdditionalMount) -> str | None:
        if mount.sub_path is None:
            return None
        written = PurePosixPath(mount.sub_path)
        if written.is_absolute() or ".." in written.parts:
            raise _Refused(f"subPath {mount.sub_path!r} leaves the claim; write a relative path without '..'")
        self._check_words("subPath", str(written))
        return str(written) if written.parts else None

    def _check_words(self, field: str, path: str) -> None:
        if _UNSAYABLE.search(path):
            raise _Refused(f"{field} {path!r} has a ':' or a control character; rename the folder")
        for word in (*ALWAYS_BLOCKED, *self.allowlist.blocked_patterns):
            if word in path:
                raise _Refused(f"{field} {path!r} contains {word!r}, which is blocked; mount another folder")

    def _read_only(self, mount: AdditionalMount, may_write: bool) -> bool:
        asked = not mount.readonly
        return not (asked and may_write and (self.is_main or not self.allowlist.non_main_read_only))


def _container_path(mount: AdditionalMount) -> str:
    source = mount.host_path or mount.claim or mount.config_map or ""
    written = mount.container_path or PurePosixPath(source).name
    below = f"write a path below {EXTRA}, like 'notes'"
    if not written.strip():
        raise _Refused(f"containerPath is blank; {below}")
    if written.startswith("/"):
        raise _Refused(f"containerPath {written!r} is absolute; {below}")
    if ".." in written:
        raise _Refused(f"containerPath {written!r} contains '..'; {below}")
    if _UNSAYABLE.search(written):
        raise _Refused(f"containerPath {written!r} has a ':' or a control character; {below}")
    if not PurePosixPath(written).parts:
        raise _Refused(f"containerPath {written!r} is {EXTRA} itself; {below}")
    return str(EXTRA / written)


def _check_node_path(written: str, *, permitted: bool) -> None:
    if not permitted:
        raise _Refused(
            f"hostPath {written!r} would be a folder of whichever node the agent runs on; mount a claim, or set "
            "mountAllowlist.hostPathsOnNodes"
        )
    if as_written(written) is None:
        raise _Refused(f"hostPath {written!r} cannot be resolved on a node; write an absolute path without '..'")


def _allowed(name: str, sources: Iterable[AllowedSource], kind: str, field: str) -> AllowedSource:
    for source in sources:
        if source.name == name:
            return source
    raise _Refused(f"the {kind} {name!r} is not allowed; add it to mountAllowlist.{field}")


def _check_free(path: str, taken: Iterable[ExtraMount]) -> None:
    for other in taken:
        if _overlap(path, other.path):
            raise _Refused(
                f"{path} is the place of {other.path}, or inside it, or around it; write another containerPath"
            )


def _overlap(path: str, other: str) -> bool:
    """Whether one is the other, or inside it."""
    return PurePosixPath(path).is_relative_to(other) or PurePosixPath(other).is_relative_to(path)
