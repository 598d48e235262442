"""Which pods a NetworkPolicy means, and what it lets them do.

Policies are the API's plain dicts. Pods and namespaces are reduced to what policies ask for, so
that a change of anything else is no change. Pure; how it becomes packet filter rules is
`packet_filter`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Manifest = Mapping[str, Any]
Direction = Literal["Ingress", "Egress"]

ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Pod:
    """A pod with a network of its own, as policies see it."""

    uid: str
    namespace: str
    labels: Mapping[str, str]
    created: str
    address: str | None
    """None until its node has told."""
    ports: tuple[tuple[str, str, int], ...]
    """Name, protocol and number of the ports its containers name."""


@dataclass(frozen=True)
class Namespace:
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Peer:
    """One side of what a rule allows: any of `addresses` but none of `without`; everybody when None."""

    addresses: tuple[str, ...] | None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ports:
    """One protocol and a range of its ports; every port when there is no range."""

    protocol: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Allowed:
    """What one part of a rule lets through. Without ports: whatever it is."""

    peer: Peer
    ports: Ports | None


def pod_of(found: Manifest) -> Pod | None:
    """None for one that policies are not about: it has ended, or uses the network of its node."""
    about, spec, status = found["metadata"], found["spec"], found.get("status", {})
    if status.get("phase") in ENDED or spec.get("hostNetwork"):
        return None
    # Init containers that keep running are named too.
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    named = [port for container in containers for port in container.get("ports", ()) if "name" in port]
    return Pod(
        uid=about["uid"],
        namespace=about["namespace"],
        labels=about.get("labels", {}),
        created=about["creationTimestamp"],
        address=status.get("podIP"),
        ports=tuple((port["name"], port.get("protocol", "TCP"), port["containerPort"]) for port in named),
    )


def namespace_of(found: Manifest) -> Namespace:
    return Namespace(found["metadata"]["name"], found["metadata"].get("labels", {}))


def policy_of(found: Manifest) -> Manifest:
    """The part that decides; a change of the rest is none."""
    return {"namespace": found["metadata"]["namespace"], "spec": found.get("spec", {})}


def placed(pods: Iterable[Pod], recorded: Mapping[str, str]) -> dict[str, Pod]:
    """Address → pod. `recorded` is what the nodes say, address → uid, and knows better than the API.

    The API hears of an address only after the pod's process was started.
    """
    pods = sorted(pods, key=lambda pod: pod.created)
    by_uid = {pod.uid: pod for pod in pods}
    told = {pod.address: pod for pod in pods if pod.address is not None and pod.address not in recorded}
    return told | {address: by_uid[uid] for address, uid in recorded.items() if uid in by_uid}


def selected(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector means something with these labels. An empty one means everything."""
    selector = selector or {}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case unknown:
            raise ValueError(unknown)


def types(spec: Manifest) -> set[str]:
    """The directions a policy is about. One that does not say is about ingress, and egress if it has a rule."""
    return set(spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])])


@dataclass(frozen=True)
class World:
    """Everything that policies can refer to."""

    pods: Mapping[str, Pod]
    """By address."""
    namespaces: Sequence[Namespace]
    policies: Sequence[Manifest]

    def allowed(self, address: str, direction: Direction) -> list[Allowed] | None:
        """All that the pod at an address may do in a direction; None when no policy is about that."""
        pod = self.pods[address]
        about = [
            policy
            for policy in self.policies
            if policy["namespace"] == pod.namespace
            and direction in types(policy["spec"])
            and selected(policy["spec"].get("podSelector"), pod.labels)
        ]
        if not about:
            return None
        found = (
            allowed
            for policy in about
            for rule in policy["spec"].get(direction.lower()) or ()
            for allowed in self._rule(rule, pod, policy["namespace"], direction)
        )
        return list(dict.fromkeys(found))

    def _rule(self, rule: Manifest, pod: Pod, namespace: str, direction: Direction) -> Iterator[Allowed]:
        entries = rule.get("from" if direction == "Ingress" else "to") or ()
        peers = list(self._peers(entries, namespace)) if entries else [Peer(None)]
        for peer in peers:
            for port in rule.get("ports") or (None,):
                if port is None:
                    yield Allowed(peer, None)
                elif not isinstance(port.get("port"), str):
                    number = port.get("port")
                    yield Allowed(peer, Ports(port.get("protocol", "TCP"), number, port.get("endPort", number)))
                elif direction == "Ingress":
                    yield from (Allowed(peer, ports) for ports in _named(pod, port))
                else:
                    yield from self._named_elsewhere(peer, port)

    def _named_elsewhere(self, peer: Peer, port: Manifest) -> Iterator[Allowed]:
        """A name means another number at every pod that is called."""
        there: dict[Ports, list[str]] = {}
        for address, pod in self.pods.items():
            if _includes(peer, address):
                for ports in _named(pod, port):
                    there.setdefault(ports, []).append(address)
        for ports, addresses in there.items():
            yield Allowed(Peer(tuple(sorted(addresses))), ports)

    def _peers(self, entries: Iterable[Manifest], own: str) -> Iterator[Peer]:
        pods = set[str]()
        for entry in entries:
            if "ipBlock" in entry:
                cidr, without = entry["ipBlock"]["cidr"], tuple(entry["ipBlock"].get("except") or ())
                if all(map(_readable, (cidr, *without))):
                    yield Peer((cidr,), without)
            else:
                pods.update(self._addresses(entry, own))
        if pods:
            yield Peer(tuple(sorted(pods)))

    def _addresses(self, entry: Manifest, own: str) -> Iterator[str]:
        inside: Callable[[str], bool] = own.__eq__
        if (selector := entry.get("namespaceSelector")) is not None:
            inside = {each.name for each in self.namespaces if selected(selector, each.labels)}.__contains__
        for address, pod in self.pods.items():
            if inside(pod.namespace) and selected(entry.get("podSelector"), pod.labels):
                yield address


def _named(pod: Pod, port: Manifest) -> Iterator[Ports]:
    for name, protocol, number in pod.ports:
        if (name, protocol) == (port["port"], port.get("protocol", "TCP")):
            yield Ports(protocol, number, number)


def _readable(block: str) -> bool:
    """An IPv4 network; pods have no other addresses. What the API took and we cannot read allows nobody."""
    try:
        ipaddress.IPv4Network(block, strict=False)
    except ValueError:
        return False
    return True


def _includes(peer: Peer, address: str) -> bool:
    def within(blocks: Iterable[str]) -> bool:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False) for block in blocks)

    return peer.addresses is None or (within(peer.addresses) and not within(peer.without))
