from __future__ import annotations

import pytest

from nanoclaw_dev.cluster.policies import (
    Allowed,
    Namespace,
    Peer,
    Pod,
    Ports,
    World,
    placed,
    pod_of,
    policy_of,
    selected,
    types,
)

AGENT, DATABASE, GUEST, NAMELESS = "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.2.4"
NAMESPACES = [Namespace("team", {"kind": "chat"}), Namespace("other", {"kind": "guests"})]


def pod(address, namespace="team", *, ports=(), created="2026-01-01T00:00:00Z", **labels):
    return Pod(f"uid-{address}", namespace, labels, created, address, ports)


PODS = {
    AGENT: pod(AGENT, app="agent", tier="front"),
    DATABASE: pod(DATABASE, app="database", ports=(("sql", "TCP", 5432), ("gossip", "UDP", 7000))),
    GUEST: pod(GUEST, "other", app="agent", ports=(("sql", "TCP", 15432),)),
    NAMELESS: pod(NAMELESS, "other"),
}


def policy(namespace="team", **spec):
    return policy_of({"metadata": {"namespace": namespace}, "spec": spec})


def allowed(address, direction, *policies):
    return World(PODS, NAMESPACES, policies).allowed(address, direction)


def egress(*rules, **selector):
    return policy(podSelector=selector, policyTypes=["Egress"], egress=list(rules))


def app(name):
    return {"matchLabels": {"app": name}}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param({}, True, id="everything"),
        pytest.param(None, True, id="not given"),
        pytest.param({"matchLabels": {"app": "agent"}}, True, id="a label"),
        pytest.param({"matchLabels": {"app": "agent", "tier": "back"}}, False, id="all labels count"),
        pytest.param({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "agent"]}]}, True, id="in"),
        pytest.param({"matchExpressions": [{"key": "no", "operator": "In", "values": ["x"]}]}, False, id="in, lacking"),
        pytest.param({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}, True, id="not in"),
        pytest.param({"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["x"]}]}, True, id="lacks it"),
        pytest.param({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True, id="exists"),
        pytest.param({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False, id="exists not"),
        pytest.param(
            {"matchLabels": {"app": "agent"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
            False,
            id="labels and expressions",
        ),
    ],
)
def test_a_selector_means_what_the_api_says(selector, expected):
    assert selected(selector, {"app": "agent", "tier": "front"}) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"Ingress"}),
        ({"ingress": []}, {"Ingress"}),
        ({"egress": []}, {"Ingress"}),
        ({"egress": [{}]}, {"Ingress", "Egress"}),
        ({"policyTypes": ["Egress"]}, {"Egress"}),
        ({"policyTypes": ["Egress", "Ingress"], "ingress": [{}]}, {"Ingress", "Egress"}),
    ],
)
def test_a_policy_that_names_no_direction_is_about_those_it_has_rules_for(spec, expected):
    assert types(spec) == expected


def test_a_pod_no_policy_is_about_may_do_everything():
    elsewhere = policy("other", podSelector={}, policyTypes=["Ingress", "Egress"])
    others = policy(podSelector=app("database"), policyTypes=["Ingress", "Egress"])
    assert allowed(AGENT, "Egress", elsewhere, others) is None
    assert allowed(AGENT, "Ingress", elsewhere, others) is None


def test_a_policy_without_rules_allows_nothing_in_its_direction_only():
    assert allowed(AGENT, "Egress", egress()) == []
    assert allowed(AGENT, "Ingress", egress()) is None


def test_a_rule_without_peers_and_ports_allows_everything():
    assert allowed(AGENT, "Egress", egress({})) == [Allowed(Peer(None), None)]
    assert allowed(AGENT, "Egress", egress({"to": [], "ports": []})) == [Allowed(Peer(None), None)]
    assert allowed(AGENT, "Ingress", policy(podSelector={}, ingress=[{}])) == [Allowed(Peer(None), None)]


@pytest.mark.parametrize(
    ("entry", "addresses"),
    [
        pytest.param({"podSelector": {}}, (AGENT, DATABASE), id="pods of the own namespace"),
        pytest.param({"podSelector": app("agent")}, (AGENT,), id="labelled ones of the own namespace"),
        pytest.param({"namespaceSelector": {}}, (AGENT, DATABASE, GUEST, NAMELESS), id="all namespaces"),
        pytest.param(
            {"namespaceSelector": {"matchLabels": {"kind": "guests"}}}, (GUEST, NAMELESS), id="a labelled namespace"
        ),
        pytest.param(
            {
                "namespaceSelector": {"matchExpressions": [{"key": "kind", "operator": "In", "values": ["guests"]}]},
                "podSelector": app("agent"),
            },
            (GUEST,),
            id="labelled ones of labelled namespaces",
        ),
    ],
)
def test_pods_are_chosen_by_their_labels_and_those_of_their_namespace(entry, addresses):
    assert allowed(AGENT, "Egress", egress({"to": [entry]})) == [Allowed(Peer(addresses), None)]
    found = allowed(AGENT, "Ingress", policy(podSelector=app("agent"), ingress=[{"from": [entry]}]))
    assert found == [Allowed(Peer(addresses), None)]


def test_a_rule_whose_peers_do_not_exist_allows_nobody():
    assert allowed(AGENT, "Egress", egress({"to": [{"podSelector": app("nobody")}]})) == []
    assert allowed(AGENT, "Egress", egress({"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]})) == []


@pytest.mark.parametrize("block", [{"cidr": "010.0.0.0/8"}, {"cidr": "10.0.0.0/8", "except": ["10.01.0.0/16"]}])
def test_a_network_that_cannot_be_read_allows_nobody_and_spoils_no_other_rule(block):
    rules = {"to": [{"ipBlock": block}]}, {"ports": [{"port": 1}]}
    assert allowed(AGENT, "Egress", egress(*rules)) == [Allowed(Peer(None), Ports("TCP", 1, 1))]


def test_a_network_is_allowed_but_for_its_exceptions():
    block = {"cidr": "10.9.0.0/16", "except": ["10.9.1.0/24", "10.9.2.0/24"]}
    (found,) = allowed(AGENT, "Egress", egress({"to": [{"ipBlock": block}]}))
    assert found == Allowed(Peer(("10.9.0.0/16",), ("10.9.1.0/24", "10.9.2.0/24")), None)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        pytest.param({"port": 80}, Ports("TCP", 80, 80), id="TCP unless said"),
        pytest.param({"port": 53, "protocol": "UDP"}, Ports("UDP", 53, 53), id="UDP"),
        pytest.param({"port": 36412, "protocol": "SCTP"}, Ports("SCTP", 36412, 36412), id="SCTP"),
        pytest.param({"port": 9000, "endPort": 9010}, Ports("TCP", 9000, 9010), id="a range"),
        pytest.param({"protocol": "UDP"}, Ports("UDP"), id="a whole protocol"),
    ],
)
def test_ports_are_a_number_a_range_or_a_protocol(port, expected):
    assert allowed(AGENT, "Egress", egress({"ports": [port]})) == [Allowed(Peer(None), expected)]


def test_every_peer_may_use_every_port():
    rule = {
        "to": [{"podSelector": app("database")}, {"ipBlock": {"cidr": "1.2.3.4/32"}}],
        "ports": [{"port": 1}, {"port": 2}],
    }
    found = {(each.peer.addresses, each.ports.first) for each in allowed(AGENT, "Egress", egress(rule))}
    assert found == {((DATABASE,), 1), ((DATABASE,), 2), (("1.2.3.4/32",), 1), (("1.2.3.4/32",), 2)}


def test_a_named_port_is_the_one_of_the_pod_that_is_called():
    named = {"ports": [{"port": "sql"}]}
    inward = policy(podSelector=app("database"), ingress=[named])
    assert allowed(DATABASE, "Ingress", inward) == [Allowed(Peer(None), Ports("TCP", 5432, 5432))]
    assert set(allowed(AGENT, "Egress", egress(named))) == {
        Allowed(Peer((DATABASE,)), Ports("TCP", 5432, 5432)),
        Allowed(Peer((GUEST,)), Ports("TCP", 15432, 15432)),
    }
    only_guests = {"to": [{"ipBlock": {"cidr": "10.0.1.0/24", "except": [f"{DATABASE}/32"]}}], **named}
    assert allowed(AGENT, "Egress", egress(only_guests)) == [Allowed(Peer((GUEST,)), Ports("TCP", 15432, 15432))]


def test_a_name_of_another_protocol_or_of_nobody_allows_nothing():
    for port in ({"port": "gossip"}, {"port": "unknown"}):
        assert allowed(AGENT, "Egress", egress({"ports": [port]})) == []
        assert allowed(DATABASE, "Ingress", policy(podSelector={}, ingress=[{"ports": [port]}])) == []


def test_what_any_of_several_policies_allows_is_allowed_and_said_once():
    first, second = egress({"ports": [{"port": 1}]}), egress({"ports": [{"port": 1}, {"port": 2}]})
    assert [each.ports.first for each in allowed(AGENT, "Egress", first, second, egress())] == [1, 2]


def manifest(**status):
    return {
        "metadata": {"uid": "1", "name": "one", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "initContainers": [{"name": "beside", "ports": [{"name": "proxy", "containerPort": 15001}]}],
            "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]}],
        },
        "status": status,
    }


def test_a_pod_is_reduced_to_what_policies_ask_for():
    found = pod_of(manifest(phase="Running", podIP=AGENT))
    assert (found.namespace, found.address, found.labels) == ("team", AGENT, {})
    assert found.ports == (("proxy", "TCP", 15001), ("web", "TCP", 80))
    assert pod_of(manifest(phase="Pending")).address is None
    assert pod_of(manifest(phase="Running", podIP=AGENT, message="else")) == found


def test_pods_that_ended_and_those_in_the_network_of_their_node_are_not_meant():
    assert pod_of(manifest(phase="Succeeded", podIP=AGENT)) is None
    assert pod_of(manifest(phase="Failed", podIP=AGENT)) is None
    in_the_nodes = manifest(phase="Running", podIP="10.0.0.11")
    in_the_nodes["spec"]["hostNetwork"] = True
    assert pod_of(in_the_nodes) is None


def test_what_the_node_recorded_of_an_address_wins_over_what_the_api_has_heard():
    old, new = pod(AGENT, app="old"), Pod("new", "team", {}, "2026-01-02T00:00:00Z", None, ())
    assert placed([old, new], {}) == {AGENT: old}
    assert placed([old, new], {AGENT: "new"}) == {AGENT: new}
    assert placed([old], {AGENT: "removed since"}) == {}


def test_of_two_pods_that_claim_an_address_the_younger_has_it():
    old, young = pod(AGENT, app="old"), pod(AGENT, created="2026-02-01T00:00:00Z")
    assert placed([young, old], {}) == {AGENT: young}
