from __future__ import annotations

import os
import re
import subprocess

import pytest

from nanoclaw_dev import system
from nanoclaw_dev.cluster import packet_filter
from nanoclaw_dev.cluster.policies import Namespace, Pod, World

NETWORK = "10.120.1.0/24"
OURS, OTHERS = "10.120.1.5", "10.120.2.6"


def pod(address, **labels):
    return Pod(address, "team", labels, "2026-01-01T00:00:00Z", address, (("web", "TCP", 8080),))


PODS = (pod(OURS, app="ours"), pod(OTHERS, app="others"))


def world(*specs, pods=PODS):
    policies = [{"namespace": "team", "spec": spec} for spec in specs]
    return World({each.address: each for each in pods}, [Namespace("team", {})], policies)


BOTH = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
RICH = {
    **BOTH,
    "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "web"}, {"protocol": "SCTP", "port": 9}]}],
    "egress": [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32", "10.0.0.0/8", "10.1.0.0/16"]}}]},
        {"to": [{"ipBlock": {"cidr": "10.9.8.7/16"}}], "ports": [{"port": 9000, "endPort": 9010}]},
        {"to": [{"podSelector": {"matchLabels": {"app": "others"}}}], "ports": [{"protocol": "UDP"}]},
    ],
}


def lines(text, chain):
    found = re.search(rf"chain {chain} {{\n(.*?)\n  }}", text, re.DOTALL)
    return [line.strip() for line in found[1].splitlines()] if found else None


def test_a_node_begins_closed_for_all_pods_in_both_directions():
    text = packet_filter.render(NETWORK, packet_filter.CLOSED)
    rules = lines(text, "forward")
    assert f"ip saddr {NETWORK} counter drop" in rules
    assert f"ip daddr {NETWORK} counter drop" in rules


def test_the_table_is_replaced_as_a_whole():
    first, second, third, *_ = packet_filter.render(NETWORK, world()).splitlines()
    assert (first, second, third) == ("table ip nanoclaw", "delete table ip nanoclaw", "table ip nanoclaw {")


def test_without_a_policy_known_pods_are_open_and_unknown_addresses_closed():
    text = packet_filter.render(NETWORK, world())
    assert text.count("chain") == 1
    _, established, *closed = lines(text, "forward")
    assert established == "ct state established,related accept"
    assert sorted(closed) == [
        f"ip daddr {NETWORK} ip daddr != {{ {OURS} }} counter drop",
        f"ip saddr {NETWORK} ip saddr != {{ {OURS} }} counter drop",
    ]


def test_a_selected_pod_has_a_chain_for_each_direction_that_ends_in_a_drop():
    text = packet_filter.render(NETWORK, world(BOTH))
    assert lines(text, "egress_10_120_1_5") == [f"ip daddr {OURS} accept", "counter drop"]
    assert lines(text, "ingress_10_120_1_5") == [f"ip saddr {OURS} accept", "counter drop"]
    assert lines(text, "forward")[-2:] == [
        f"ip saddr vmap {{ {OURS} : jump egress_10_120_1_5 }}",
        f"ip daddr vmap {{ {OURS} : jump ingress_10_120_1_5 }}",
    ]


def test_pods_of_other_nodes_have_no_chain_here_but_are_known_as_peers():
    text = packet_filter.render(NETWORK, world(RICH))
    assert lines(text, "egress_10_120_2_6") is None
    assert f"ip daddr {{ {OTHERS} }} meta l4proto udp return" in lines(text, "egress_10_120_1_5")


def test_rules_say_who_may_use_which_ports():
    text = packet_filter.render(NETWORK, world(RICH))
    assert lines(text, "ingress_10_120_1_5")[1:] == [
        f"ip saddr {{ {OURS}, {OTHERS} }} tcp dport 8080 return",
        f"ip saddr {{ {OURS}, {OTHERS} }} sctp dport 9 return",
        "counter drop",
    ]
    assert lines(text, "egress_10_120_1_5")[1:3] == [
        "ip daddr { 0.0.0.0/0 } ip daddr != { 10.0.0.0/8, 169.254.169.254 } return",
        "ip daddr { 10.9.0.0/16 } tcp dport 9000-9010 return",
    ]


def test_the_same_state_in_another_order_gives_the_same_rules():
    pods = [pod(f"10.120.1.{number}", app="many") for number in range(2, 20)]
    assert packet_filter.render(NETWORK, world(BOTH, pods=pods)) == packet_filter.render(
        NETWORK, world(BOTH, pods=reversed(pods))
    )


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(packet_filter.CLOSED, id="closed"),
        pytest.param(world(), id="no policy"),
        pytest.param(world(BOTH), id="default deny"),
        pytest.param(world(RICH), id="everything a policy can say"),
        pytest.param(world(RICH, pods=[pod(f"10.120.1.{n}", app="others") for n in range(2, 200)]), id="many pods"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0 or system.program("nft") is None, reason="needs root and nftables")
def test_the_packet_filter_takes_it(state):
    checked = subprocess.run(
        [system.required("nft"), "-c", "-f", "-"],
        input=packet_filter.render(NETWORK, state),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stderr == ""
    assert checked.returncode == 0
