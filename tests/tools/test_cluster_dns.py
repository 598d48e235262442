from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from nanoclaw_dev import modules
from nanoclaw_dev.cluster import dns, render
from nanoclaw_dev.cluster.instance import Instance

INSTANCE = Instance("some", Path("/base"))


def objects():
    return {found["kind"]: (path, found) for path, found in dns.objects(INSTANCE)}


def pod():
    return objects()["Deployment"][1]["spec"]["template"]


def test_pods_ask_the_service_of_their_own_cluster():
    service = objects()["Service"][1]["spec"]
    kubelet = json.loads(render.kubelet_configuration(INSTANCE.node(1), timing=render.Timing()))
    assert kubelet["clusterDNS"] == [service["clusterIP"]]
    assert ipaddress.ip_address(service["clusterIP"]) in ipaddress.ip_network(INSTANCE.service_network)
    assert service["clusterIP"] != INSTANCE.first_service
    assert render.resolver(INSTANCE) == f"nameserver {service['clusterIP']}\n"
    assert kubelet["clusterDomain"] in dns.configuration()


def test_the_service_leads_to_the_ports_of_the_pod_by_the_usual_label():
    service = objects()["Service"][1]["spec"]
    assert service["selector"] == pod()["metadata"]["labels"] == {"k8s-app": "kube-dns"}
    (container,) = pod()["spec"]["containers"]
    listened = {(port["protocol"], port["containerPort"]) for port in container["ports"]}
    assert {(port["protocol"], port["targetPort"]) for port in service["ports"]} == listened
    assert {port["port"] for port in service["ports"]} == {53}


def test_the_pod_has_no_privileges_and_may_only_read_what_names_are_made_of():
    (container,) = pod()["spec"]["containers"]
    assert pod()["spec"]["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    rules = objects()["ClusterRole"][1]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list", "watch"}
    assert {kind for rule in rules for kind in rule["resources"]} == {
        *("services", "pods", "namespaces", "endpointslices"),
    }


def test_another_program_or_other_settings_make_another_pod(monkeypatch):
    before = pod()
    monkeypatch.setattr(dns, "TTL", 60)
    settings = pod()
    assert settings != before
    monkeypatch.setattr(dns, "image", lambda: "localhost/nanoclaw/coredns:other")
    assert pod() != settings


def test_dns_is_as_wanted_when_the_last_object_tells_of_the_same_ones(monkeypatch):
    path, deployment = dns.objects(INSTANCE)[-1]
    assert path == dns.DEPLOYMENT
    assert dns.as_wanted(INSTANCE, deployment)
    assert not dns.as_wanted(INSTANCE, None)
    assert not dns.as_wanted(INSTANCE, {"metadata": {}})
    monkeypatch.setattr(dns, "PORT", 53)
    assert not dns.as_wanted(INSTANCE, deployment)


@pytest.mark.parametrize("word", ["forward", "resolv.conf"])
def test_nothing_is_asked_of_the_machines_own_resolver(word):
    assert word not in dns.configuration()


def test_every_directive_is_of_a_plugin_that_is_built_in():
    program = (modules.COREDNS.folder / "main.go").read_text()
    directives = {
        line.split()[0] for line in dns.configuration().splitlines() if line.startswith("    ") and line[4] != " "
    }
    for directive in directives - {"}"}:
        assert f'/plugin/{directive}"' in program


def test_every_object_lies_at_the_path_it_is_applied_to():
    for path, found in dns.objects(INSTANCE):
        about = found["metadata"]
        assert path.endswith(f"/{about['name']}")
        assert (f"/namespaces/{about.get('namespace')}/" in path) == ("namespace" in about)
