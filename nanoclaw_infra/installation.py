"""The whole of one environment: which components there are and what they hand each other."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.access import Access
from nanoclaw_infra.controller import Controller
from nanoclaw_infra.credentials import Credentials
from nanoclaw_infra.discovery import custom_resources
from nanoclaw_infra.gateway import Gateway, GatewayKey
from nanoclaw_infra.guardrails import Guardrails
from nanoclaw_infra.monitoring import Monitoring
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.network import Network
from nanoclaw_infra.openshift import SccBinding
from nanoclaw_infra.priorities import Priorities
from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.declared import claimed_folders
from nanoclaw_infra.settings.place import ClusterSettings
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.storage import GroupClaims, InstallationClaims
from nanoclaw_runtime.contract import names


class Installation(pulumi.ComponentResource):
    """NanoClaw in one namespace of one cluster. Agents are not in here: the controller starts them."""

    outputs: Mapping[str, pulumi.Output[str]]
    """What `pulumi up` prints: the namespace, the Service, and a command that sends a message."""

    def __init__(self, name: str, stack: Stack) -> None:
        settings = stack.settings
        served = custom_resources(stack)
        provider = _provider(stack)
        super().__init__(
            "nanoclaw:installation:Installation",
            name,
            {},
            pulumi.ResourceOptions(providers={"kubernetes": provider}),
        )
        ours = pulumi.ResourceOptions(parent=self)
        namespace = Namespace(name, settings, opts=ours)
        priorities = Priorities(name, settings, opts=ours)
        access = Access(name, settings, namespace, opts=ours)
        network = Network(name, settings, namespace, opts=ours)
        constraint = SccBinding(name, settings, namespace, opts=ours)
        guardrails = Guardrails(name, settings, namespace, opts=ours)
        claims = _claims(name, settings, namespace, opts=ours)
        credentials = Credentials(name, stack, namespace=namespace, served=served, opts=ours)
        key = GatewayKey(name, settings, namespace, opts=ours)
        if key.secret is not None and credentials.secret is not None:
            Gateway(
                name,
                settings,
                namespace=namespace,
                key=key.secret,
                credentials=credentials.secret,
                after=[*namespace.bounds, *priorities.classes, *network.policies, *constraint.bindings],
                opts=ours,
            )
        controller = Controller(
            name,
            stack,
            namespace=namespace,
            access=access,
            credentials=credentials.secret,
            gateway_key=key.secret,
            after=[
                *namespace.bounds,
                *priorities.classes,
                *network.policies,
                *constraint.bindings,
                *guardrails.bindings,
                *claims,
            ],
            opts=ours,
        )

        Monitoring(name, settings, namespace, served, opts=ours)

        folders = [group.folder for group in settings.groups.groups]
        first = names.MAIN_FOLDER if names.MAIN_FOLDER in folders else next(iter(folders), "GROUP")
        self.outputs = {
            "namespace": namespace.name,
            "service": controller.service,
            "send": namespace.name.apply(lambda namespace: _send(settings.cluster, namespace, first)),
        }
        self.register_outputs(dict(self.outputs))


def _claims(
    name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Every claim that is declared; those of a group are one component, so that a preview shows them together."""
    components: list[InstallationClaims | GroupClaims] = [InstallationClaims(name, settings, namespace, opts=opts)]
    components += [GroupClaims(folder, settings, namespace, opts=opts) for folder in claimed_folders(settings)]
    return [claim for component in components for claim in component.claims]


def _provider(stack: Stack) -> kubernetes.Provider:
    if stack.render_to is not None:
        return kubernetes.Provider("cluster", render_yaml_to_directory=stack.render_to)
    cluster = stack.settings.cluster
    return kubernetes.Provider(
        "cluster",
        # The path, not the content: the state holds no credentials, and `~` reads the same for everybody.
        kubeconfig=cluster.kubeconfig,
        context=cluster.context,
        enable_server_side_apply=True,
        # In place, for what the running controller watches or reads again.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )


def _send(cluster: ClusterSettings, namespace: str, folder: str) -> str:
    """A command line that sends a message to the group `folder` and waits for the answer."""
    where = ["--kubeconfig", cluster.kubeconfig]
    if cluster.context is not None:
        where += ["--context", cluster.context]
    return shlex.join(["nanoclaw", *where, "--namespace", namespace, "send", folder, "hello", "--follow"])
