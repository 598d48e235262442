"""Where the agents' credentials come from: the stack's encrypted values, somebody's Secret, or an external store.

Whatever it is, what comes out is the name of one Secret of the namespace, which pods mount. Not here:
who mounts which of its keys, and whether the needed ones are there (`settings.secrets`).
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.discovery import EXTERNAL_SECRETS, Served
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.platform import ExternalSecretSettings
from nanoclaw_runtime.contract import labels, names


class Credentials(pulumi.ComponentResource):
    """The Secret with what agents get on stdin, or what keeps it. Nothing when the stack has no credentials."""

    secret: pulumi.Output[str] | None
    """Its name. It need not exist yet: a pod that mounts it waits for it."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        *,
        namespace: Namespace,
        served: Served,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("nanoclaw:credentials:Credentials", name, {}, opts)
        self._metadata = kubernetes.meta.v1.ObjectMetaArgs(
            name=names.CREDENTIALS, namespace=namespace.name, labels=labels.component(labels.CONTROLLER)
        )
        self._options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)
        theirs = stack.settings.credentials
        if stack.secrets.credentials is not None:
            self.secret = self._own(name, stack.secrets.credentials, opts.parent)
        elif theirs.external is not None:
            self.secret = self._external(theirs.external, served)
        else:
            existing = theirs.existing_secret
            self.secret = None if existing is None else pulumi.Output.from_input(existing)
        self.register_outputs({"secret": self.secret})

    def _own(
        self, name: str, credentials: pulumi.Output[dict[str, str]], installation: pulumi.Resource | None
    ) -> pulumi.Output[str]:
        # It was the controller's child once; without this name for it a stack from then would delete it.
        controller = pulumi.create_urn(name, "nanoclaw:controller:Controller", installation)
        secret = kubernetes.core.v1.Secret(
            names.CREDENTIALS,
            metadata=self._metadata,
            string_data=credentials,
            opts=pulumi.ResourceOptions.merge(
                self._options, pulumi.ResourceOptions(aliases=[pulumi.Alias(parent=controller)])
            ),
        )
        return secret.metadata.name

    def _external(self, external: ExternalSecretSettings, served: Served) -> pulumi.Output[str]:
        made = kubernetes.apiextensions.CustomResource(
            names.CREDENTIALS,
            api_version=served.api_version(EXTERNAL_SECRETS),
            kind=EXTERNAL_SECRETS.kind,
            metadata=self._metadata,
            spec=external_secret_spec(external),
            opts=pulumi.ResourceOptions.merge(
                self._options,
                # The operator's newer version is the same object.
                pulumi.ResourceOptions(
                    aliases=[
                        pulumi.Alias(type_=f"kubernetes:{version}:{EXTERNAL_SECRETS.kind}")
                        for version in EXTERNAL_SECRETS.api_versions
                    ]
                ),
            ),
        )
        return made.urn.apply(lambda _: names.CREDENTIALS)


def external_secret_spec(external: ExternalSecretSettings) -> dict[str, object]:
    """What the operator is asked for: a Secret that is its own to keep, and goes when the ExternalSecret goes."""
    return {
        "refreshInterval": external.refresh,
        "secretStoreRef": {"name": external.store, "kind": external.store_kind},
        "target": {"name": names.CREDENTIALS, "creationPolicy": "Owner"},
        "data": [
            {
                "secretKey": credential,
                "remoteRef": {"key": where.key} | ({"property": where.property} if where.property else {}),
            }
            for credential, where in sorted(external.data.items())
        ],
    }
