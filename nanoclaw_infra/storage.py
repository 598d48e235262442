"""The claims, as the contract lists them; which StorageClass serves them is the cluster's business.

Every claim is declared and not awaited: one of a WaitForFirstConsumer class binds only when its
first pod comes, and the provider's own waiting gets that wrong. The Deployment that mounts the
controller's claims is awaited; the controller itself looks at the groups'.
"""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import claims, names
from nanoclaw_runtime.contract.claims import Claim, Purpose
from nanoclaw_runtime.contract.config import GroupSpec


class InstallationClaims(pulumi.ComponentResource):
    """The claims every installation has. Precious ones outlive the stack when it protects its data."""

    claims: list[kubernetes.core.v1.PersistentVolumeClaim]

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:storage:InstallationClaims", name, {}, opts)
        wanted = claims.installation_claims(settings.runtime.layout)
        self.claims = _declare(wanted, settings, namespace, parent=self)
        self.register_outputs({})


class GroupClaims(pulumi.ComponentResource):
    """The claims of one group. They outlive the component when the stack protects its data."""

    claims: list[kubernetes.core.v1.PersistentVolumeClaim]

    def __init__(
        self,
        group: GroupSpec,
        settings: StackSettings,
        namespace: Namespace,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nanoclaw:storage:GroupClaims", names.slug(group.folder), {}, opts)
        wanted = claims.group_claims(settings.runtime.layout, group.folder)
        self.claims = _declare(wanted, settings, namespace, parent=self)
        self.register_outputs({})


def _declare(
    wanted: Iterable[Claim], settings: StackSettings, namespace: Namespace, parent: pulumi.Resource
) -> list[kubernetes.core.v1.PersistentVolumeClaim]:
    return [
        kubernetes.core.v1.PersistentVolumeClaim(
            claim.name,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=claim.name,  # fixed: the controller and the agents' Jobs look for it
                namespace=namespace.name,
                labels=claims.claim_labels(claim),
                annotations={"pulumi.com/skipAwait": "true"} | claims.claim_annotations(claim),
            ),
            spec=_spec(claim, settings),
            opts=pulumi.ResourceOptions(
                parent=parent,
                deleted_with=namespace.goes_with_it,
                protect=settings.protect_data and claim.precious,
                retain_on_delete=settings.protect_data and claim.precious,
            ),
        )
        for claim in wanted
    ]


def _spec(claim: Claim, settings: StackSettings) -> kubernetes.core.v1.PersistentVolumeClaimSpecArgs:
    storage = settings.storage
    database = claim.purpose is Purpose.STORE
    return kubernetes.core.v1.PersistentVolumeClaimSpecArgs(
        access_modes=["ReadWriteOnce" if database else storage.access_mode],
        storage_class_name=(database and storage.database_storage_class) or storage.storage_class,
        resources=kubernetes.core.v1.VolumeResourceRequirementsArgs(requests={"storage": storage.size(claim.purpose)}),
    )
