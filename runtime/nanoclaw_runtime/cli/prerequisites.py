"""Looks at a cluster with a stack in hand: whether everything is there that `pulumi up` and the agents will need.

Before the first `up` and after it. What may not be looked at is told as such and is no failure. Judging is next
door: `prerequisites_cluster`, `_storage`, `_rights` and `_admission`. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from nanoclaw_runtime.cli import doctor, doctor_volumes
from nanoclaw_runtime.cli import prerequisites_admission as admission
from nanoclaw_runtime.cli import prerequisites_asked as asked
from nanoclaw_runtime.cli import prerequisites_cluster as cluster
from nanoclaw_runtime.cli import prerequisites_rights as rights
from nanoclaw_runtime.cli import prerequisites_storage as storage
from nanoclaw_runtime.cli.doctor import Finding
from nanoclaw_runtime.cli.examine import CSI_DRIVERS, NAMESPACES, OURS, Tell
from nanoclaw_runtime.cli.installation import DAEMON_SETS, SECRETS
from nanoclaw_runtime.cli.prerequisites_rights import Right
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import RESTRICTED_SCC, Pattern, Platform
from nanoclaw_runtime.contract.needs import Needs
from nanoclaw_runtime.kube.client import KubeClient, Manifest
from nanoclaw_runtime.kube.errors import Forbidden, KubeError, NotFound
from nanoclaw_runtime.kube.resources import CLAIMS, DEPLOYMENTS, PODS, Resource

STORAGE_CLASSES: Final = Resource("StorageClass", "storageclasses", "/apis/storage.k8s.io/v1", namespaced=False)
DAEMON_SETS_ANYWHERE: Final = Resource("DaemonSet", "daemonsets", "/apis/apps/v1", namespaced=False)
QUOTAS: Final = Resource("ResourceQuota", "resourcequotas")
SERVICES: Final = Resource("Service", "services")

_DNS_PORT: Final = 53
_PODS: Final = "admission: pods"

Look = Callable[[KubeClient, Needs], Awaitable[list[Finding]]]


async def prerequisites(client: KubeClient, needs: Needs, tell: Tell) -> list[Finding]:
    """Every finding about the cluster and the stack's place in it; `tell` hears what is looked at."""
    found = [finding for check, look in _CLUSTER for finding in await _told(check, look(client, needs), tell)]
    tell("namespace")
    try:
        place = await client.get(NAMESPACES, needs.namespace)
    except NotFound:
        found.append(cluster.namespace(needs, None))
        return found + [doctor.skipped(check, "there is no namespace yet") for check, _ in _PLACE]
    except KubeError as error:
        found.append(_unseen("namespace", error))
    else:
        found.append(cluster.namespace(needs, place))
    return found + [finding for check, look in _PLACE for finding in await _told(check, look(client, needs), tell)]


async def absent(client: KubeClient, needs: Needs) -> str:
    """Why the installation cannot be looked at; empty when its controller is there."""
    try:
        return "" if await _installed(client, needs) else "there is no controller yet; `pulumi up` makes it"
    except KubeError as error:
        return _unseen("", error).evidence.removeprefix("not looked at: ")


async def _installed(client: KubeClient, needs: Needs) -> bool:
    controller = DAEMON_SETS if needs.config.pattern is Pattern.NODELOCAL else DEPLOYMENTS
    try:
        await client.get(controller, names.CONTROLLER, namespace=needs.namespace)
    except NotFound:
        return False
    return True


async def _told(check: str, look: Awaitable[list[Finding]], tell: Tell) -> list[Finding]:
    tell(check)
    try:
        return await look
    except KubeError as error:
        return [_unseen(check, error)]


def _unseen(check: str, error: KubeError) -> Finding:
    if isinstance(error, Forbidden):
        return doctor.skipped(check, f"you may not {error.target.verb} {error.target.resource}")
    return doctor.failed(check, error.message, "check the API server, and look again")


# The cluster


async def _features(client: KubeClient, needs: Needs) -> list[Finding]:
    return cluster.features(await client.version(), needs.features)


async def _platform(client: KubeClient, needs: Needs) -> list[Finding]:
    served = await asked.served(client, "security.openshift.io", ("v1",))
    return [cluster.platform(needs.config.platform, openshift=bool(served))]


async def _clock(client: KubeClient, needs: Needs) -> list[Finding]:  # noqa: ARG001
    served = await asked.served_at(client)
    if served is None:
        return [doctor.skipped("clock", "the API server tells no time")]
    return [cluster.clock(served, datetime.now(UTC))]


async def _rights(client: KubeClient, needs: Needs) -> list[Finding]:
    if await asked.allowed(client, rights.EVERYTHING):
        return rights.rights(needs, {rights.EVERYTHING: True})
    return rights.rights(needs, await asked.which(client, rights.asked(needs)))


async def _storage(client: KubeClient, needs: Needs) -> list[Finding]:
    found = await client.list(STORAGE_CLASSES)
    try:
        claims = await client.list(CLAIMS, namespace=needs.namespace)
    except Forbidden:
        claims = []  # they only show that a class has served its claims before
    return storage.classes(needs, found, claims)


async def _drivers(client: KubeClient, needs: Needs) -> list[Finding]:
    """What the classes would make; of claims that are bound, the installation's own checks tell."""
    planned = storage.planned(needs, await client.list(STORAGE_CLASSES))
    owners = doctor_volumes.owners(needs.config, planned, await client.list(CSI_DRIVERS))
    return [*doctor_volumes.caching(needs.config, planned), *owners]


async def _custom(client: KubeClient, needs: Needs) -> list[Finding]:
    return [
        cluster.custom_kinds(kinds, await asked.served(client, kinds.group, kinds.versions)) for kinds in needs.custom
    ]


async def _api_server(client: KubeClient, needs: Needs) -> list[Finding]:
    if needs.api_server is None:
        return [doctor.skipped("API server's address", "the stack makes no policies that could close it off")]
    return [cluster.api_server(needs.api_server, await asked.behind(client, "default", "kubernetes"))]


async def _dns(client: KubeClient, needs: Needs) -> list[Finding]:
    if needs.dns_namespace is None:
        return [doctor.skipped("DNS", "the stack makes no policies that could cut it off")]
    labels = ",".join(f"{key}={value}" for key, value in needs.dns_namespace.items())
    places = [each["metadata"]["name"] for each in await client.list(NAMESPACES, labels=labels)]
    services = [
        (place, each["metadata"]["name"])
        for place in places
        for each in await client.list(SERVICES, namespace=place)
        if any(port["port"] == _DNS_PORT for port in each["spec"].get("ports", ()))
    ]
    ready = [await asked.ready(client, place, name) for place, name in services]
    return [cluster.dns(needs.dns_namespace, places, sum(ready) if services else None)]


async def _policies(client: KubeClient, needs: Needs) -> list[Finding]:
    if needs.dns_namespace is None:
        return [doctor.skipped("network policies", "the stack makes none")]
    found = await client.list(DAEMON_SETS_ANYWHERE)
    return [cluster.enforcement(found), *cluster.node_dns(found)]


# The stack's place in it


async def _existing(client: KubeClient, needs: Needs) -> list[Finding]:
    found = await client.list(CLAIMS, namespace=needs.namespace)
    return storage.existing(needs, found, installed=await _installed(client, needs))


async def _secrets(client: KubeClient, needs: Needs) -> list[Finding]:
    return [
        admission.secret(wanted, there=await asked.exists(client, SECRETS, wanted.name, needs.namespace))
        for wanted in needs.secrets
    ]


async def _images(client: KubeClient, needs: Needs) -> list[Finding]:
    return admission.images(needs, await client.list(PODS, namespace=needs.namespace, labels=OURS))


async def _quota(client: KubeClient, needs: Needs) -> list[Finding]:
    found = await client.list(QUOTAS, namespace=needs.namespace)
    return admission.quota(found, needs.amounts, installed=await _installed(client, needs))


async def _claims_admitted(client: KubeClient, needs: Needs) -> list[Finding]:
    found = await client.list(CLAIMS, namespace=needs.namespace)
    there = {each["metadata"]["name"] for each in found}
    return await _tried(client, needs, CLAIMS, admission.claims(needs, there))


async def _pods_admitted(client: KubeClient, needs: Needs) -> list[Finding]:
    config = needs.config
    if config.platform is Platform.OPENSHIFT and config.scc != RESTRICTED_SCC:
        return [doctor.skipped(_PODS, f"only the stack's own accounts may use {config.scc}")]
    return await _tried(client, needs, PODS, admission.pods(needs))


async def _tried(client: KubeClient, needs: Needs, resource: Resource, manifests: dict[str, Manifest]) -> list[Finding]:
    check = f"admission: {resource.plural}"
    if not await asked.allowed(client, Right("create", "", resource.plural, needs.namespace)):
        return [doctor.skipped(check, f"you may not create {resource.plural}")]
    answers = {what: await asked.tried(client, needs.namespace, resource, each) for what, each in manifests.items()}
    refusals = [admission.refusal(what, error) for what, error in answers.items() if error is not None]
    return refusals or [doctor.good(check, f"{', '.join(manifests)} accepted" if manifests else "all are there")]


_CLUSTER: Final[tuple[tuple[str, Look], ...]] = (
    ("features", _features),
    ("platform", _platform),
    ("clock", _clock),
    (rights.CHECK, _rights),
    ("storage class", _storage),
    ("storage drivers", _drivers),
    ("custom resources", _custom),
    ("API server's address", _api_server),
    ("DNS", _dns),
    ("network policies", _policies),
)
_PLACE: Final[tuple[tuple[str, Look], ...]] = (
    ("claims", _existing),
    ("secrets", _secrets),
    ("images", _images),
    ("quota", _quota),
    ("admission: claims", _claims_admitted),
    (_PODS, _pods_admitted),
)
