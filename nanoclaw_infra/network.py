"""Who may talk to whom: nothing, and then what each kind of pod needs.

An agent reaches cluster DNS and the model, or the gateway in front of it; not the API server, not
another agent, and of the controller nothing but the port of the bridge, where the stack has one: what
the container beside it may, it may, too. Policies are additive, so each says one thing. Rules match
pods and their own ports, behind every Service. Whether anybody enforces them is the cluster's network
plug-in; `nanoclaw doctor --stack` looks for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.network import ANTHROPIC, API_SERVER_PORTS, HTTPS, TELEGRAM, ApiServer, Peer
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import gateway, labels, names
from nanoclaw_runtime.contract.config import Pattern, Platform

DNS_PORTS: Final = (53, 5353)
"""Of the DNS pods, not of their Service; OpenShift's listen on the second."""
HOST_NETWORK: Final = {"policy-group.network.openshift.io/host-network": ""}
"""Whatever uses a node's network, as OpenShift's plug-in knows it: pods see another address than the node's."""

_Rules = Sequence[kubernetes.networking.v1.NetworkPolicyIngressRuleArgs]
_Egress = Sequence[kubernetes.networking.v1.NetworkPolicyEgressRuleArgs]


class Network(pulumi.ComponentResource):
    """The NetworkPolicies of the namespace."""

    policies: list[pulumi.Resource]
    """Pods made before them could talk to anybody."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:network:Network", name, {}, opts)
        self._namespace = namespace
        self._options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)
        self.policies = []
        if settings.network.enabled:
            # A namespace that somebody else hands out may hold pods that are not ours to cut off.
            everybody = {} if settings.namespace.create else {labels.PART_OF: "nanoclaw"}
            self._allow("default-deny", everybody, ingress=[], egress=[])
            self._allow("dns", everybody, egress=[_to_dns(settings)])
            self._allow("agents", labels.component(labels.AGENT), egress=_of_agents(settings))
            self._allow(
                "controller",
                labels.component(labels.CONTROLLER),
                ingress=_to_controller(settings),
                egress=_of_controller(settings),
            )
            if settings.gateway.enabled:
                self._allow(
                    "gateway",
                    labels.component(labels.GATEWAY),
                    ingress=_to_gateway(settings),
                    egress=_egress(_of_gateway(settings)),
                )
        self.register_outputs({})

    def _allow(
        self, purpose: str, pods: dict[str, str], *, ingress: _Rules | None = None, egress: _Egress | None = None
    ) -> None:
        """One policy; a direction that is None is not spoken of, an empty one is closed."""
        name = f"nanoclaw-{purpose}"
        directions = {"Ingress": ingress, "Egress": egress}
        policy = kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=name, namespace=self._namespace.name, labels=labels.component(labels.PLATFORM)
            ),
            spec=kubernetes.networking.v1.NetworkPolicySpecArgs(
                pod_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=pods or None),
                policy_types=[direction for direction, rules in directions.items() if rules is not None],
                ingress=ingress or None,
                egress=egress or None,
            ),
            opts=self._options,
        )
        self.policies.append(policy)


def _of_agents(settings: StackSettings) -> _Egress:
    wanted: Sequence[Peer] | None = settings.network.agents
    if wanted is None:
        wanted = () if settings.gateway.enabled else _addresses(ANTHROPIC)
    gateway, bridge = _ours(labels.GATEWAY, names.GATEWAY_PORT), _ours(labels.CONTROLLER, names.BRIDGE_PORT)
    own = [*([gateway] if settings.gateway.enabled else []), *([bridge] if settings.runtime.bridged else [])]
    return _egress([*wanted, *own])


def _of_controller(settings: StackSettings) -> _Egress:
    network, channels = settings.network, settings.runtime.channels
    peers = [*network.controller]
    if channels.telegram is not None and channels.telegram.has_default_url:
        peers += _addresses(TELEGRAM)
    if settings.runtime.pattern is Pattern.NODELOCAL:  # each passes on what is another's
        peers.append(_ours(labels.CONTROLLER, names.API_PORT))
    if network.api_server is None:
        return [_anywhere_at(API_SERVER_PORTS), *_egress(peers)]
    return _egress([*_addresses(network.api_server.cidrs, network.api_server.ports), *peers])


def _of_gateway(settings: StackSettings) -> Sequence[Peer]:
    wanted = settings.network.gateway
    return _addresses(ANTHROPIC) if wanted is None else wanted


def _to_controller(settings: StackSettings) -> _Rules:
    """Its API, for the API server's proxy and for whoever the stack names. Agents are stopped where they start."""
    network = settings.network
    agents = [_ours(labels.AGENT, names.BRIDGE_PORT)] if settings.runtime.bridged else []
    bridge = _ingress(agents, names.BRIDGE_PORT)
    if network.api_server is None:
        return [kubernetes.networking.v1.NetworkPolicyIngressRuleArgs(ports=_ports([names.API_PORT])), *bridge]
    callers = [*_api_proxy(settings, network.api_server), *network.clients, *network.scrapers]
    if settings.runtime.pattern is Pattern.NODELOCAL:
        callers.append(_ours(labels.CONTROLLER, names.API_PORT))
    return [*_ingress(callers, names.API_PORT), *bridge]


def _to_gateway(settings: StackSettings) -> _Rules:
    """Calls of agents; what groups use is for operators, at a port of its own. Agents are stopped where they start."""
    network = settings.network
    agents = _ingress([_ours(labels.AGENT, names.GATEWAY_PORT)], names.GATEWAY_PORT)
    port = gateway.OPERATIONS_PORT
    if network.api_server is None:
        return [*agents, kubernetes.networking.v1.NetworkPolicyIngressRuleArgs(ports=_ports([port]))]
    return [*agents, *_ingress([*_api_proxy(settings, network.api_server), *network.scrapers], port)]


def _api_proxy(settings: StackSettings, server: ApiServer) -> list[Peer]:
    """Where calls through the API server come from."""
    on_openshift = settings.runtime.platform is Platform.OPENSHIFT
    return [*_addresses(server.cidrs), *([Peer(namespace=HOST_NETWORK)] if on_openshift else [])]


def _addresses(cidrs: Iterable[str], ports: tuple[int, ...] = HTTPS) -> list[Peer]:
    return [Peer(cidr=cidr, ports=ports) for cidr in cidrs]


def _ours(component: str, port: int) -> Peer:
    return Peer(pods=labels.component(component), ports=(port,))


def _to_dns(settings: StackSettings) -> kubernetes.networking.v1.NetworkPolicyEgressRuleArgs:
    return kubernetes.networking.v1.NetworkPolicyEgressRuleArgs(
        to=[
            kubernetes.networking.v1.NetworkPolicyPeerArgs(
                namespace_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=settings.network.dns_namespace)
            )
        ],
        ports=[*_ports(DNS_PORTS, "UDP"), *_ports(DNS_PORTS)],
    )


def _anywhere_at(ports: Iterable[int]) -> kubernetes.networking.v1.NetworkPolicyEgressRuleArgs:
    return kubernetes.networking.v1.NetworkPolicyEgressRuleArgs(ports=_ports(ports))


def _egress(peers: Iterable[Peer]) -> _Egress:
    """One rule for all peers with the same ports."""
    by_ports: dict[tuple[int, ...], list[Peer]] = {}
    for peer in peers:
        by_ports.setdefault(peer.ports, []).append(peer)
    return [
        kubernetes.networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer(each) for each in some], ports=_ports(ports))
        for ports, some in by_ports.items()
    ]


def _ingress(callers: Sequence[Peer], port: int) -> _Rules:
    if not callers:
        return []
    return [
        kubernetes.networking.v1.NetworkPolicyIngressRuleArgs(
            from_=[_peer(each) for each in callers], ports=_ports([port])
        )
    ]


def _peer(peer: Peer) -> kubernetes.networking.v1.NetworkPolicyPeerArgs:
    if peer.cidr is not None:
        block = kubernetes.networking.v1.IPBlockArgs(cidr=peer.cidr, except_=[*peer.except_] or None)
        return kubernetes.networking.v1.NetworkPolicyPeerArgs(ip_block=block)
    return kubernetes.networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=_selector(peer.namespace), pod_selector=_selector(peer.pods)
    )


def _selector(match: dict[str, str] | None) -> kubernetes.meta.v1.LabelSelectorArgs | None:
    return None if match is None else kubernetes.meta.v1.LabelSelectorArgs(match_labels=match)


def _ports(ports: Iterable[int], protocol: str = "TCP") -> list[kubernetes.networking.v1.NetworkPolicyPortArgs]:
    return [kubernetes.networking.v1.NetworkPolicyPortArgs(protocol=protocol, port=port) for port in ports]
