"""The packet filter of a node, as the network policies want it.

One table, replaced as a whole. It is asked on the way between a pod and anything but the pod's own
node, after Services were resolved: rules speak of pods and their ports. What a pod's address is
not known for passes in neither direction, so a pod is never ahead of its rules.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterable, Iterator

from nanoclaw_dev.cluster.policies import Allowed, Direction, Peer, Ports, World
from nanoclaw_dev.errors import SetupError

TABLE = "ip nanoclaw"
PEER = {"Ingress": "saddr", "Egress": "daddr"}
SELF = {"Ingress": "daddr", "Egress": "saddr"}
# The side of a packet that the peer, and that the pod itself, is on.
DIRECTIONS: tuple[Direction, ...] = ("Egress", "Ingress")

CLOSED = World({}, (), ())
# What a node begins with: no pod is known yet.


def render(pod_network: str, world: World) -> str:
    """The whole table of the node whose pods have addresses in `pod_network`."""
    network = ipaddress.ip_network(pod_network)
    local = sorted(address for address in world.pods if ipaddress.ip_address(address) in network)
    chains, jumps = list[str](), list[str]()
    for direction in DIRECTIONS:
        entries = []
        for address in local:
            allowed = world.allowed(address, direction)
            if allowed is not None:
                name = f"{direction.lower()}_{address.replace('.', '_')}"
                chains += _chain(name, direction, address, allowed)
                entries.append(f"{address} : jump {name}")
        if entries:
            jumps.append(f"    ip {SELF[direction]} vmap {_set(entries)}")
    closed = [f"    ip {side} {pod_network} {_unknown(side, local)}counter drop" for side in SELF.values()]
    return "\n".join(
        [
            f"table {TABLE}",  # so that there is one to delete
            f"delete table {TABLE}",
            f"table {TABLE} {{",
            *chains,
            "  chain forward {",
            "    type filter hook forward priority filter - 5; policy accept;",
            "    ct state established,related accept",
            *closed,
            *jumps,
            "  }",
            "}",
            "",
        ]
    )


def load(init: int, rules: str) -> None:
    """Replace the table of the node whose PID 1 is given, at once or not at all. Raises SetupError."""
    command = ["nsenter", f"--target={init}", "--net", "--", "nft", "-f", "-"]
    result = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SetupError(f"The packet filter refused its rules: {result.stderr.strip()[-300:]}.")


def _chain(name: str, direction: Direction, address: str, allowed: Iterable[Allowed]) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield f"    ip {PEER[direction]} {address} accept"  # nobody can be kept from calling itself
    for each in allowed:
        parts = [*_peer(each.peer, PEER[direction]), *_ports(each.ports), "return"]
        yield f"    {' '.join(parts)}"
    yield "    counter drop"
    yield "  }"


def _unknown(side: str, known: list[str]) -> str:
    return f"ip {side} != {_set(known)} " if known else ""


def _peer(peer: Peer, side: str) -> Iterator[str]:
    if peer.addresses is not None:
        yield f"ip {side} {_networks(peer.addresses)}"
    if peer.without:
        yield f"ip {side} != {_networks(peer.without)}"


def _ports(ports: Ports | None) -> Iterator[str]:
    if ports is None:
        return
    protocol = ports.protocol.lower()
    if ports.first is None:
        yield f"meta l4proto {protocol}"
    else:
        yield f"{protocol} dport {ports.first}" + (f"-{ports.last}" if ports.last != ports.first else "")


def _networks(blocks: Iterable[str]) -> str:
    """The set of these networks; the packet filter wants none of them inside another."""
    networks = [ipaddress.IPv4Network(block, strict=False) for block in blocks]
    merged = ipaddress.collapse_addresses(networks)
    return _set(str(each.network_address) if each.prefixlen == 32 else str(each) for each in merged)


def _set(elements: Iterable[str]) -> str:
    return f"{{ {', '.join(elements)} }}"
