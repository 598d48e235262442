"""The claims, as the contract lists them, and the StorageClass behind them where the stack makes one.

Every claim is declared and not awaited: one of a WaitForFirstConsumer class binds only when its
first pod comes, and the provider's own waiting gets that wrong. The Deployment that mounts the
controller's claims is awaited; the controller itself looks at the groups'.
"""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.namespace import KEPT, Namespace
from nanoclaw_infra.settings.declared import installation_claims
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.storage import StorageClassSettings
from nanoclaw_runtime.contract import claims, labels, names
from nanoclaw_runtime.contract.claims import Claim

_CLAIM = "PersistentVolumeClaim"


class InstallationClaims(pulumi.ComponentResource):
    """The claims every installation has. Precious ones outlive the stack when it protects its data."""

    claims: list[kubernetes.core.v1.PersistentVolumeClaim]

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:storage:InstallationClaims", name, {}, opts)
        if settings.storage.make_class is not None:
            _storage_class(settings.storage.make_class, pulumi.ResourceOptions(parent=self))
        self.claims = declare(installation_claims(settings), settings, namespace, parent=self)
        self.register_outputs({})


class GroupClaims(pulumi.ComponentResource):
    """The claims of one group. They outlive the component when the stack protects its data."""

    claims: list[kubernetes.core.v1.PersistentVolumeClaim]

    def __init__(
        self,
        folder: str,
        settings: StackSettings,
        namespace: Namespace,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nanoclaw:storage:GroupClaims", names.slug(folder), {}, opts)
        wanted = claims.group_claims(settings.runtime.layout, folder)
        self.claims = declare(wanted, settings, namespace, parent=self)
        self.register_outputs({})


def declare(
    wanted: Iterable[Claim], settings: StackSettings, namespace: Namespace, parent: pulumi.Resource
) -> list[kubernetes.core.v1.PersistentVolumeClaim]:
    """These claims, as children of `parent`; those the stack adopts are imported and left as they are."""
    return [
        kubernetes.core.v1.PersistentVolumeClaim(
            claim.name,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=claim.name,  # fixed: the controller and the agents' Jobs look for it
                namespace=namespace.name,
                labels=claims.claim_labels(claim),
                annotations={"pulumi.com/skipAwait": "true"}
                | claims.claim_annotations(claim)
                | (KEPT if _keeps(claim, settings) else {}),
            ),
            spec=_spec(claim, settings),
            opts=pulumi.ResourceOptions.merge(_kept(claim, settings, namespace, parent), _adopted(claim, settings)),
        )
        for claim in wanted
    ]


def _keeps(claim: Claim, settings: StackSettings) -> bool:
    return claim.precious and settings.protects(_CLAIM, claim.name)


def _kept(
    claim: Claim, settings: StackSettings, namespace: Namespace, parent: pulumi.Resource
) -> pulumi.ResourceOptions:
    keep = _keeps(claim, settings)
    return pulumi.ResourceOptions(
        parent=parent, deleted_with=namespace.goes_with_it, protect=keep, retain_on_delete=keep
    )


def _adopted(claim: Claim, settings: StackSettings) -> pulumi.ResourceOptions | None:
    """A claim of somebody else's making rarely says what we would: nothing of it is changed while it is adopted."""
    if claim.name not in settings.storage.adopt:
        return None
    return pulumi.ResourceOptions(
        import_=f"{settings.namespace.name}/{claim.name}",
        ignore_changes=["metadata", "spec"],
    )


def _spec(claim: Claim, settings: StackSettings) -> kubernetes.core.v1.PersistentVolumeClaimSpecArgs:
    storage = settings.storage
    return kubernetes.core.v1.PersistentVolumeClaimSpecArgs(
        access_modes=[storage.mode(claim.purpose)],
        storage_class_name=storage.class_of(claim.purpose),
        resources=kubernetes.core.v1.VolumeResourceRequirementsArgs(
            requests={"storage": storage.size(claim.purpose, claim.folder)}
        ),
    )


def _storage_class(made: StorageClassSettings, opts: pulumi.ResourceOptions) -> None:
    kubernetes.storage.v1.StorageClass(
        made.name,
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=made.name, labels=labels.component(labels.STORAGE)),
        provisioner=made.provisioner,
        parameters=made.parameters or None,
        mount_options=[*made.mount_options] or None,
        reclaim_policy=made.reclaim_policy,
        volume_binding_mode=made.binding,
        allow_volume_expansion=made.expandable,
        opts=opts,
    )
