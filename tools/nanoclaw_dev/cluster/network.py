"""The bridge between the host and a cluster's nodes, and whether its addresses are free.

A bridge of ours carries the cluster's state folder as its alias, so that one with the same name
that somebody else made is neither used nor removed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from typing import Any

from nanoclaw_dev.cluster.instance import Instance, NodePlace
from nanoclaw_dev.errors import SetupError

REMEDY = "set NANOCLAW_INSTANCE to another name, from which other addresses follow"


def clash(
    instance: Instance, links: list[dict[str, Any]], addresses: list[dict[str, Any]], routes: list[dict[str, Any]]
) -> str | None:
    """What of this machine's network stands in the way, as a sentence; None when nothing does.

    The lists are what `ip -json` prints for `link show`, `address show` and `route show table all`.
    """
    ours = ipaddress.ip_network(instance.network)
    for link in links:
        if link["ifname"] == instance.bridge and link.get("ifalias") != str(instance.folder):
            return f"The network interface {instance.bridge} is somebody else's: {REMEDY}."
    for link in addresses:
        if link["ifname"] == instance.bridge:
            continue
        for address in link.get("addr_info", []):
            if address["family"] == "inet" and ipaddress.ip_address(address["local"]) in ours:
                return f"This machine has the address {address['local']} of {ours} on {link['ifname']}: {REMEDY}."
    for route in routes:
        if route.get("dev") == instance.bridge or route.get("type", "unicast") != "unicast":
            continue
        network = _network(route["dst"])
        # A route to everything, or to all of 10.0.0.0/8, is no use of our part in particular.
        if network is not None and network.prefixlen > 8 and network.overlaps(ours):
            where = f"through {route['dev']}" if "dev" in route else "already"
            return f"Addresses of {ours} are routed {where} ({route['dst']}): {REMEDY}."
    return None


def check_addresses(instance: Instance) -> None:
    """Raises SetupError when the cluster's range is in use on this machine."""
    links, addresses = _ask("link", "show"), _ask("address", "show")
    if found := clash(instance, links, addresses, _ask("route", "show", "table", "all")):
        raise SetupError(found)


def bridge_exists(instance: Instance) -> bool:
    """The cluster's own bridge is there."""
    return any(
        link["ifname"] == instance.bridge and link.get("ifalias") == str(instance.folder)
        for link in _ask("link", "show", "type", "bridge")
    )


def create_bridge(instance: Instance) -> None:
    """Make the bridge with its address. Raises SetupError when the range is in use."""
    check_addresses(instance)
    if not bridge_exists(instance):
        _ip("link", "add", instance.bridge, "type", "bridge")
        _ip("link", "set", instance.bridge, "alias", str(instance.folder))
    _ip("address", "replace", f"{instance.bridge_address}/24", "dev", instance.bridge)
    _ip("link", "set", instance.bridge, "up")


def remove_bridge(instance: Instance) -> None:
    """Remove the bridge and with it the routes through it, if it is this cluster's."""
    if bridge_exists(instance):
        _ip("link", "delete", instance.bridge)


def connect(place: NodePlace, pid: int) -> None:
    """Lay a cable from the host to `eth0` in the network namespace of process `pid`."""
    _ip("link", "add", place.interface, "type", "veth", "peer", "name", "eth0", "netns", str(pid))


def unplug(place: NodePlace) -> None:
    """Remove a node's cable. It also goes with the node, but only some time after."""
    if any(link["ifname"] == place.interface for link in _ask("link", "show", "type", "veth")):
        with contextlib.suppress(SetupError):  # it went just now
            _ip("link", "delete", place.interface)


def plug_in(place: NodePlace) -> None:
    """Put the host's end of a node's cable into the bridge, where it may be already."""
    _ip("link", "set", place.interface, "master", place.instance.bridge, "up")
    _ip("route", "replace", place.pod_network, "via", place.address, "dev", place.instance.bridge)


def cut(place: NodePlace) -> None:
    """Take the cable out at the host's end: nothing reaches the node or leaves it, and it lives on."""
    _ip("link", "set", place.interface, "down")  # its route goes, too


def plugged_in(place: NodePlace) -> bool:
    """The host's end of a node's cable is there and up."""
    return any(link["ifname"] == place.interface and "UP" in link["flags"] for link in _ask("link", "show"))


def _network(text: str) -> ipaddress.IPv4Network | None:
    if text == "default":
        return None
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return None
    return network if isinstance(network, ipaddress.IPv4Network) else None


def _ask(*question: str) -> list[dict[str, Any]]:
    answer = _ip("-json", *question)
    return [entry for entry in json.loads(answer or "[]") if entry]


def _ip(*arguments: str) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SetupError(f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}.")
    return result.stdout
