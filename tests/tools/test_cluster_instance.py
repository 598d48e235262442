from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from nanoclaw_dev.cluster.instance import MOST_NODES, NAME, Instance
from nanoclaw_dev.errors import SetupError

BASE = Path("/base")
NAMES = some.from_regex(NAME, fullmatch=True)


@given(NAMES)
def test_every_name_gives_usable_interfaces_ports_and_addresses(name):
    instance = Instance(name, BASE)
    nodes = [instance.node(index) for index in range(1, MOST_NODES + 1)]
    interfaces = [instance.bridge, *(node.interface for node in nodes)]
    ports = [
        instance.api_port,
        instance.etcd_port,
        instance.etcd_peer_port,
        instance.controller_manager_port,
        instance.scheduler_port,
    ]
    assert all(len(interface) <= 15 for interface in interfaces)
    assert len(set(interfaces)) == len(interfaces)
    assert len(set(ports)) == len(ports)
    assert all(1024 < port < 32768 for port in ports)


@given(NAMES)
def test_nodes_pods_and_services_share_one_range_and_no_address(name):
    instance = Instance(name, BASE)
    nodes = [instance.node(index) for index in range(1, MOST_NODES + 1)]
    parts = [instance.node_network, instance.service_network, *(node.pod_network for node in nodes)]
    networks = [ipaddress.ip_network(part) for part in parts]
    whole = ipaddress.ip_network(instance.network)
    assert all(network.subnet_of(whole) for network in networks)
    assert not [1 for a in networks for b in networks if a is not b and a.overlaps(b)]
    assert all(ipaddress.ip_address(node.address) in networks[0] for node in nodes)
    assert ipaddress.ip_address(instance.bridge_address) in networks[0]
    assert next(networks[1].hosts()) == ipaddress.ip_address(instance.first_service)


@pytest.mark.parametrize("name", ["", "Upper", "1st", "under_score", "a" * 31, "../other", "with space"])
def test_a_name_that_cannot_be_a_folder_and_a_cgroup_is_refused(name):
    with pytest.raises(SetupError, match="NANOCLAW_INSTANCE"):
        Instance(name, BASE)


def test_the_environment_chooses_name_and_place(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCLAW_INSTANCE", "second")
    monkeypatch.setenv("NANOCLAW_STATE", str(tmp_path))
    assert Instance().folder == tmp_path / "second"
    monkeypatch.delenv("NANOCLAW_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Instance().folder == tmp_path / "xdg" / "nanoclaw" / "second"


def test_the_lock_outlives_the_folder():
    instance = Instance("one", BASE)
    assert not instance.lock.is_relative_to(instance.folder)
