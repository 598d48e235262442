"""What a look at the cluster itself means for a stack: version, platform, clock, namespace, operators, DNS, network.

Pure functions from what was found to findings, as `doctor` has them. Looking is `prerequisites`' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from nanoclaw_runtime.cli.doctor import Finding, Object, doubtful, failed, good, numbers_of, skipped
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import Platform
from nanoclaw_runtime.contract.needs import ApiServerNeed, CustomKinds, Feature, Needs, Version

SKEW: Final = timedelta(seconds=10)
"""Beyond it, times that are compared across machines mislead; the API server tells whole seconds."""

_OPENSHIFT_IS_BEHIND: Final = 13
# OpenShift 4.N is Kubernetes 1.(N + 13).
_LEVELS: Final = ("restricted", "baseline", "privileged")
# Of Pod Security, the strictest first.

_ENFORCING: Final = {
    "calico-node": "Calico",
    "canal": "Calico",
    "cilium": "Cilium",
    "anetd": "GKE Dataplane V2",
    "antrea-agent": "Antrea",
    "ovnkube-node": "OVN-Kubernetes",
    "kube-router": "kube-router",
    "weave-net": "Weave Net",
    "azure-npm": "Azure NPM",
}
_OPEN: Final = {"kube-flannel-ds": "Flannel", "kube-flannel": "Flannel"}
# Connects pods and enforces nothing.
_AWS, _AWS_AGENT = "aws-node", "aws-eks-nodeagent"
# Enforces where its second container is there and was told to.
_NODE_DNS: Final = "node-local-dns"
_TRY: Final = (
    "try it once the stack is up: from an agent's pod a connection to an address that no policy names has to fail"
)


def features(version: str, wanted: Iterable[Feature]) -> list[Finding]:
    """What of the stack the cluster is too old for."""
    check, numbers = "features", numbers_of(version)
    if numbers is None:
        return [skipped(check, f"the version {version!r} tells nothing")]
    return [_too_old(check, version, each) for each in wanted if numbers < each.since] or [
        good(check, f"version {version} has all that the stack uses")
    ]


def _too_old(check: str, version: str, feature: Feature) -> Finding:
    evidence = f"version {version} is older than {told(feature.since)}, which has {feature.what}: {feature.without}"
    remedy = "update the cluster" + (f", or change {feature.setting}" if feature.setting else "")
    return failed(check, evidence, remedy) if feature.essential else doubtful(check, evidence, remedy)


def told(version: Version) -> str:
    major, minor = version
    return f"Kubernetes {major}.{minor} (OpenShift 4.{minor - _OPENSHIFT_IS_BEHIND})"


def platform(wanted: Platform, *, openshift: bool) -> Finding:
    """`openshift` tells whether the cluster serves OpenShift's own API of security."""
    check, is_openshift = "platform", wanted is Platform.OPENSHIFT
    if is_openshift == openshift:
        return good(check, wanted.value)
    if openshift:
        return failed(
            check,
            "the cluster is OpenShift and the stack's platform is kubernetes: uid 1000 is refused",
            "set nanoclaw:platform to openshift",
        )
    return failed(
        check,
        "the stack's platform is openshift and the cluster is not: nobody gives the pods a uid",
        "set nanoclaw:platform to kubernetes",
    )


def clock(served: datetime, here: datetime) -> Finding:
    """`served` is the Date of the API server's answer, `here` this machine's time when it came."""
    check, skew = "clock", served - here
    seconds = round(abs(skew.total_seconds()))
    if abs(skew) <= SKEW:
        return good(check, "this machine's and the API server's agree")
    return doubtful(
        check,
        f"the API server's clock is {seconds} s {'ahead of' if skew > timedelta() else 'behind'} this machine's",
        "let both follow NTP: tokens, certificates and scheduled tasks go by the clock",
    )


def namespace(needs: Needs, found: Object | None) -> Finding:
    """`found` is the Namespace, None when there is none."""
    check, name = "namespace", needs.namespace
    if found is None:
        if needs.makes_namespace:
            return good(check, f"{name}; `pulumi up` makes it")
        return failed(check, f"there is no namespace {name!r}", "have it made, or set namespace.create to true")
    if found.get("status", {}).get("phase") == "Terminating":
        return failed(check, f"{name} is being deleted", "wait until it is gone; its finalizers say what it waits for")
    has = found["metadata"].get("labels", {})
    if needs.makes_namespace and has.get(labels.PART_OF) != "nanoclaw":
        return doubtful(
            check,
            f"{name} exists and was not made by a stack: `pulumi up` takes it over without a word"
            + (f" and has it enforce Pod Security {needs.pod_security!r}" if needs.pod_security else ""),
            "set namespace.create to false, or choose another name",
        )
    enforced = has.get("pod-security.kubernetes.io/enforce", "")
    return good(check, name + (f", enforces Pod Security {enforced!r}" if enforced in _LEVELS else ""))


def custom_kinds(wanted: CustomKinds, served: Mapping[str, Iterable[str]]) -> Finding:
    """`served` has the plurals of each version of the group that the cluster serves."""
    check, remedy = wanted.group, f"install {wanted.operator}, or change {wanted.setting}"
    if not served:
        return failed(check, f"not installed, and {wanted.setting} needs it", remedy)
    known = [version for version in wanted.versions if version in served]
    if not known:
        return failed(check, f"serves {', '.join(sorted(served))}, not {' or '.join(wanted.versions)}", remedy)
    missing = set(wanted.plurals) - {plural for version in known for plural in served[version]}
    if missing:
        return failed(check, f"lacks {', '.join(sorted(missing))}", remedy)
    return good(check, f"{', '.join(wanted.plurals)} in {known[0]}")


def api_server(wanted: ApiServerNeed, found: Sequence[tuple[str, int]]) -> Finding:
    """Whether the policies let the controller reach it; `found` is what is behind the Service `kubernetes`."""
    check = "API server's address"
    ranges = [ip_network(cidr) for cidr in wanted.cidrs]
    closed = [
        (address, port)
        for address, port in found
        if port not in wanted.ports or (ranges and not any(ip_address(address) in each for each in ranges))
    ]
    told = ", ".join(f"{address}:{port}" for address, port in found)
    if not found:
        return doubtful(check, "nothing is behind the Service `kubernetes`", "see that network.apiServer has it")
    if closed:
        cidrs = ", ".join(sorted({f"{address}/{ip_address(address).max_prefixlen}" for address, _ in found}))
        ports = ", ".join(sorted({str(port) for _, port in found}))
        return failed(
            check,
            f"it is at {told}, where the network policies do not let the controller",
            f"set network.apiServer to {{cidrs: [{cidrs}], ports: [{ports}]}}",
        )
    return good(check, f"{told}, which the controller may reach")


def dns(wanted: Mapping[str, str], namespaces: Sequence[str], ready: int | None) -> Finding:
    """`namespaces` carry the labels the policies select; `ready` addresses answer for a Service at port 53 in them.

    `ready` is None when no such Service is there.
    """
    check, labelled = "DNS", ", ".join(f"{key}={value}" for key, value in wanted.items())
    remedy = "name its namespace's labels in network.dnsNamespace"
    if not namespaces:
        return failed(check, f"no namespace has {labelled}: pods could not look up any name", remedy)
    where = ", ".join(namespaces)
    if ready is None:
        return failed(check, f"there is no Service at port 53 in {where}: pods could not look up any name", remedy)
    if not ready:
        return failed(check, f"the Service at port 53 in {where} has nothing behind it", "look at the DNS pods there")
    return good(check, f"{ready} addresses behind the Service at port 53 in {where}")


def enforcement(daemon_sets: Sequence[Object]) -> Finding:
    """Who enforces NetworkPolicies; `daemon_sets` are all of the cluster. No API tells it."""
    check = "network policies"
    found = {each["metadata"]["name"]: each for each in daemon_sets}
    if known := [title for name, title in _ENFORCING.items() if name in found]:
        return good(check, f"{known[0]} enforces them")
    if _AWS in found and _AWS_AGENT in _containers(found[_AWS]):
        return doubtful(check, "the AWS VPC CNI enforces them if it was told to", f"set enableNetworkPolicy; {_TRY}")
    if passive := [title for name, title in _OPEN.items() if name in found]:
        return failed(
            check,
            f"{passive[0]} enforces none: agents could talk to everybody",
            "install a network plug-in that does; without one set network.enabled to false, knowing that",
        )
    return doubtful(check, "nobody who is known to enforce them was found; that alone means little", _TRY)


def node_dns(daemon_sets: Sequence[Object]) -> list[Finding]:
    """A DNS cache on the nodes is no pod that a policy could name."""
    if not any(each["metadata"]["name"] == _NODE_DNS for each in daemon_sets):
        return []
    return [
        doubtful(
            "DNS",
            f"{_NODE_DNS} runs: where pods are sent to it, the policies may not let them through",
            "try it once the stack is up; add the cache's address to network.agents and network.controller, port 53",
        )
    ]


def _containers(daemon_set: Object) -> set[str]:
    return {each["name"] for each in daemon_set["spec"]["template"]["spec"]["containers"]}
