"""Which rights the identity behind `pulumi up` needs for a stack, and what is missing of them.

Besides what the stack makes, it needs whatever the controller's Role gives: Kubernetes lets nobody give away what they
do not have. Pure functions; the API server is asked in `prerequisites`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nanoclaw_runtime.cli.doctor import Finding, failed, good
from nanoclaw_runtime.contract.needs import Kind, Needs
from nanoclaw_runtime.contract.permissions import controller_cluster_rules, controller_rules

CHECK: Final = "rights of `pulumi up`"
_RBAC: Final = "rbac.authorization.k8s.io"

_VERBS: Final = ("get", "create", "patch", "delete")
# Objects are applied by the server, which asks for create and patch both.
_AWAITED: Final = {
    "deployments": (("apps", "deployments"), ("apps", "replicasets"), ("", "pods")),
    "daemonsets": (("apps", "daemonsets"), ("", "pods")),
}
# What is looked at until the roll-out of such a kind has ended.


@dataclass(frozen=True)
class Right:
    """One thing to be allowed, as RBAC has it."""

    verb: str
    group: str
    resource: str
    """Plural, with the subresource behind a slash."""
    namespace: str = ""
    """Empty for the whole cluster."""
    name: str = ""


EVERYTHING: Final = Right("*", "*", "*")
"""Whoever may do this is asked nothing more."""


def of_up(needs: Needs) -> list[Right]:
    """What making, changing and removing the stack's objects needs."""
    made = [_right(verb, kind, needs.namespace) for kind in needs.kinds for verb in _VERBS]
    awaited = {looked: None for kind in needs.kinds for looked in _AWAITED.get(kind.plural, ())}
    looks = [Right(verb, *looked, needs.namespace) for looked in awaited for verb in ("list", "watch")]
    return made + looks


def given_away(needs: Needs) -> list[Right]:
    """What the controller's Role gives, and its ClusterRole where it has one."""
    rules = [(rule, needs.namespace) for rule in controller_rules(needs.config)]
    return [
        Right(verb, rule.api_group, resource, namespace, name)
        for rule, namespace in (*rules, *((rule, "") for rule in controller_cluster_rules(needs.config)))
        for resource in rule.resources
        for verb in rule.verbs
        for name in rule.names or ("",)
    ]


def instead(needs: Needs) -> list[Right]:
    """Which let somebody give away what they do not have."""
    places = {"roles": needs.namespace} | ({"clusterroles": ""} if controller_cluster_rules(needs.config) else {})
    return [Right(verb, _RBAC, kind, namespace) for kind, namespace in places.items() for verb in ("escalate", "bind")]


def constraint(needs: Needs) -> list[Right]:
    """Either of them lets somebody give OpenShift's constraint to the stack's accounts; empty when it does not."""
    if not needs.binds_constraint:
        return []
    scc = needs.config.scc
    return [
        Right("use", "security.openshift.io", "securitycontextconstraints", needs.namespace, scc),
        Right("bind", _RBAC, "clusterroles", needs.namespace, f"system:openshift:scc:{scc}"),
    ]


def asked(needs: Needs) -> set[Right]:
    """Every right that `rights` looks at."""
    return {*of_up(needs), *given_away(needs), *instead(needs), *constraint(needs)}


def rights(needs: Needs, allowed: Mapping[Right, bool]) -> list[Finding]:
    """`allowed` has every right of `asked`, or just `EVERYTHING`."""
    if allowed.get(EVERYTHING):
        return [good(CHECK, "all there are")]
    findings = []
    if missing := [right for right in of_up(needs) if not allowed[right]]:
        findings.append(failed(CHECK, f"you may not {_listed(missing)}", "ask for these rights"))
    lacking = [right for right in given_away(needs) if not allowed[right]]
    if lacking and not all(allowed[right] for right in instead(needs)):
        findings.append(
            failed(
                CHECK,
                f"the controller's Role gives rights that you do not have: {_listed(lacking)}",
                f"ask for them in {needs.namespace}, or for {_listed(instead(needs))} there",
            )
        )
    if (either := constraint(needs)) and not any(allowed[right] for right in either):
        findings.append(
            failed(
                CHECK,
                f"openshift.bind gives {needs.config.scc}, which you may not use yourself",
                f"ask for it, or set openshift.bind to false and have {either[1].name} bound to the accounts",
            )
        )
    return findings or [good(CHECK, f"all {len(of_up(needs))} that making, changing and removing the stack needs")]


def _right(verb: str, kind: Kind, namespace: str) -> Right:
    return Right(verb, kind.group, kind.plural, namespace if kind.namespaced else "")


def _listed(rights: Sequence[Right]) -> str:
    """`create, patch deployments.apps; get secrets`: the verbs of each resource together, in the order they come."""
    verbs: dict[str, list[str]] = {}
    for right in rights:
        what = f"{right.resource}.{right.group}" if right.group else right.resource
        verbs.setdefault(what, []).append(right.verb)
    return "; ".join(f"{', '.join(_distinct(found))} {what}" for what, found in verbs.items())


def _distinct(verbs: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(verbs)]
