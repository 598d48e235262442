"""The storage of groups that are added at run time, where each group has claims of its own.

Claims are made and never deleted here: a group that goes keeps its data. They reach the
controller by server-side apply on its own Deployment, under a field manager of its own, so that
the stack's next `pulumi up` leaves them alone; the Deployment then replaces this very process,
and the next one finds them mounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.contract import claims, labels, layout
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import RegistrationStorage
from nanoclaw_runtime.domain.errors import RegistrationRefused
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import AlreadyExists, KubeError
from nanoclaw_runtime.kube.resources import CLAIMS, DEPLOYMENTS
from nanoclaw_runtime.manifests.registration import controller_part, group_claim

FIELD_MANAGER: Final = "nanoclaw-registration"
"""Owns, of the controller's Deployment, the mounts of such groups and nothing else."""

_log = structlog.get_logger(__name__)


class ClaimVolumes:
    """Claims as the stack would make them; needs the contract's `REGISTRATION_RULES`."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        cut: Layout,
        storage: RegistrationStorage,
        tree: Path,
        *,
        carried: bool = False,
    ) -> None:
        """`carried` when only agents mount the groups' claims: what the controller had of them before is given up."""
        self._carried = carried
        self._client = client
        self._namespace = namespace
        self._layout = cut
        self._storage = storage
        self._tree = tree

    async def provide(self, folder: str) -> None:
        """Make the group's claims; those it had before are taken again. Raises RegistrationRefused."""
        for claim in claims.group_claims(self._layout, folder):
            manifest = group_claim(claim, self._storage)
            try:
                await self._client.create(CLAIMS, manifest, namespace=self._namespace, identity=labels.GROUP)
            except AlreadyExists:
                raise RegistrationRefused(
                    f"the claim {claim.name!r} exists and is not one of group {folder!r}; "
                    "delete or rename it, or choose another folder"
                ) from None
            except KubeError as error:
                raise RegistrationRefused(
                    f"the storage of group {folder!r} cannot be made ({error}); try again when the cluster lets us"
                ) from error

    async def mount(self, folders: Collection[str]) -> None:
        """Have the claims of exactly these groups in the controller's pod, which is replaced if that changes it.

        Raises KubeError.
        """
        part = controller_part(self._layout, () if self._carried else folders)
        applied = await self._client.apply(DEPLOYMENTS, part, manager=FIELD_MANAGER, namespace=self._namespace)
        _log.info("groups mounted", groups=sorted(folders), generation=applied["metadata"]["generation"])

    async def mounted(self, folder: str) -> bool:
        """Whether the group's folders are here. Nobody can make them but a mount: the pod's own root is read-only."""
        if self._carried:
            return True
        needed = (layout.group_dir(folder), layout.ipc_dir(folder), layout.sessions_dir(folder))
        try:
            return await asyncio.to_thread(lambda: all((self._tree / each).is_dir() for each in needed))
        except OSError as error:  # one group's broken volume is that group's trouble
            _log.warning("storage of an added group not seen", group=folder, error=str(error))
            return False
