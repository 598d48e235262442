from __future__ import annotations

from pathlib import Path

import pytest

from nanoclaw_dev.cluster import cgroups, network
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.errors import SetupError

INSTANCE = Instance("some", Path("/base"))
OWN = {"ifname": INSTANCE.bridge, "ifalias": str(INSTANCE.folder)}
FOREIGN = {"ifname": INSTANCE.bridge}
BLOCK = INSTANCE.block


def address(interface, local):
    return {"ifname": interface, "addr_info": [{"family": "inet", "local": local}]}


@pytest.mark.parametrize(
    ("links", "addresses", "routes"),
    [
        pytest.param([], [], [], id="nothing there"),
        pytest.param([OWN], [address(INSTANCE.bridge, INSTANCE.bridge_address)], [], id="our own bridge"),
        pytest.param([OWN], [], [{"dst": INSTANCE.node_network, "dev": INSTANCE.bridge}], id="our own route"),
        pytest.param(
            [], [], [{"dst": "default", "dev": "eth0"}, {"dst": "10.0.0.0/8", "dev": "vpn"}], id="wide routes"
        ),
        pytest.param([], [], [{"dst": "10.1.0.0/16", "dev": "other"}], id="beside ours"),
        pytest.param([], [], [{"type": "local", "dst": f"10.{BLOCK}.0.1", "dev": "lo"}], id="no unicast route"),
        pytest.param([], [], [{"dst": "fe80::/64", "dev": "eth0"}], id="version 6"),
    ],
)
def test_a_free_range_is_taken(links, addresses, routes):
    assert network.clash(INSTANCE, links, addresses, routes) is None


@pytest.mark.parametrize(
    ("links", "addresses", "routes"),
    [
        pytest.param([FOREIGN], [], [], id="a bridge of our name"),
        pytest.param([], [address("eth0", f"10.{BLOCK}.7.7")], [], id="an address of the range"),
        pytest.param([], [], [{"dst": f"10.{BLOCK}.3.0/24", "dev": "vpn"}], id="a route into the range"),
        pytest.param([], [], [{"dst": f"10.{BLOCK}.3.4", "dev": "vpn"}], id="a route to one address"),
        pytest.param([], [], [{"dst": f"10.{BLOCK // 2 * 2}.0.0/15", "dev": "vpn"}], id="a route around the range"),
    ],
)
def test_a_range_in_use_is_refused_with_the_remedy(links, addresses, routes):
    assert "NANOCLAW_INSTANCE" in network.clash(INSTANCE, links, addresses, routes)


VERSION_1 = """\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
34 24 0:30 / /elsewhere rw,relatime - cgroup cgroup rw,pids
35 24 0:31 / / rw,relatime - ext4 /dev/vda rw
"""


def test_the_trees_of_version_1_are_read_from_the_mounts():
    found = cgroups.version_1(VERSION_1)
    assert [root.name for root in found.roots] == ["cpu,cpuacct", "memory", "unified"]
    assert {"cpu", "cpuacct", "memory"} <= found.controllers


def test_missing_controllers_are_named():
    with pytest.raises(SetupError, match="cpuset, pids"):
        cgroups.check_controllers(cgroups.version_1(VERSION_1))
