"""Looks at everything a message passes on its way, from the outside in, and lets `doctor` judge it.

A look that fails is a finding too. What needs something that is not there is skipped, not tried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from nanoclaw_runtime.backends.docker_client import DockerClient, DockerFailed
from nanoclaw_runtime.cli import doctor, doctor_volumes
from nanoclaw_runtime.cli.direct import Direct
from nanoclaw_runtime.cli.doctor import Finding, Verdict
from nanoclaw_runtime.cli.errors import CommandFailed, NotReachable, Refused
from nanoclaw_runtime.cli.installation import DAEMON_SETS, find_controller
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import CONFIG_DIR, ControllerConfig
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import KubeError, NotFound
from nanoclaw_runtime.kube.resources import CLAIMS, CONFIG_MAPS, EVENTS, PODS, Resource

VOLUMES: Final = Resource("PersistentVolume", "persistentvolumes", namespaced=False)
CSI_DRIVERS: Final = Resource("CSIDriver", "csidrivers", "/apis/storage.k8s.io/v1", namespaced=False)
NAMESPACES: Final = Resource("Namespace", "namespaces", namespaced=False)
OURS: Final = f"{labels.NAME}=nanoclaw"

_RIGHTS: Final = (
    # verb, resource, subresource, name, as it is told
    ("get", "services", "proxy", names.CONTROLLER, "get services/proxy"),
    ("create", "services", "proxy", names.CONTROLLER, "create services/proxy"),
    ("delete", "services", "proxy", names.CONTROLLER, "delete services/proxy"),
    ("get", "secrets", "", names.API_TOKEN, f"get secret {names.API_TOKEN}"),
    ("list", "pods", "", "", "list pods"),
    ("get", "pods", "log", "", "get pods/log"),
)

Tell = Callable[[str], None]


async def reachable(client: KubeClient) -> Finding:
    """The first finding; nothing else is worth a look when it is bad."""
    try:
        return doctor.version(await client.version())
    except KubeError as error:
        return doctor.failed("API server", error.message, "check --kubeconfig, --context and the network")


async def examine(remote: Remote, tell: Tell) -> list[Finding]:
    """Every finding behind the API server; `tell` hears what is looked at."""
    looks: tuple[tuple[str, Callable[[Remote], Awaitable[Finding]]], ...] = (
        ("namespace", _namespace),
        ("controller", _controller),
        ("pods", _pods),
        ("volumes", _claims),
        ("your rights", _rights),
        ("events", _warnings),
    )
    found = []
    for check, look in looks:
        tell(check)
        found.append(await _guarded(check, look(remote)))
        if check == "namespace" and found[-1].verdict is Verdict.BAD:
            return found
    tell("drivers of volumes")
    found += await _drivers(remote)
    tell("service")
    return [*found, *await _service(remote, "answers through the API server")]


async def examine_direct(remote: Remote) -> list[Finding]:
    """The same for a controller that is reached directly; it looks after its own host."""
    way = remote.transport
    assert isinstance(way, Direct)
    found = await _service(remote, f"answers at {way.url}")
    return [await _engine(), *found] if way.local and not doctor.healthy(found[:1]) else found


async def _guarded(check: str, look: Awaitable[Finding]) -> Finding:
    try:
        return await look
    except NotFound as error:
        return doctor.failed(check, f"{error.target.resource} {error.target.name} is missing", "run `pulumi up`")
    except KubeError as error:
        return doctor.failed(check, error.message, "ask for the right to look, or check the API server")


async def _namespace(remote: Remote) -> Finding:
    try:
        await remote.cluster.client.get(NAMESPACES, remote.cluster.namespace)
    except NotFound:
        return doctor.failed(
            "namespace",
            f"there is no namespace {remote.cluster.namespace!r}",
            "name another with --namespace, or `pulumi up`",
        )
    return Finding(check="namespace", verdict=Verdict.GOOD, evidence=remote.cluster.namespace)


async def _controller(remote: Remote) -> Finding:
    """One Deployment, or with the pattern `nodelocal` a member on each node."""
    found = await find_controller(remote.cluster.client, remote.cluster.namespace)
    return doctor.daemon_set(found) if found["kind"] == DAEMON_SETS.kind else doctor.deployment(found)


async def _pods(remote: Remote) -> Finding:
    return doctor.pods(await remote.cluster.client.list(PODS, namespace=remote.cluster.namespace, labels=OURS))


async def _claims(remote: Remote) -> Finding:
    return doctor.claims(await remote.cluster.client.list(CLAIMS, namespace=remote.cluster.namespace, labels=OURS))


async def _drivers(remote: Remote) -> list[Finding]:
    """What the bound volumes mean for the installation as its controller was told; a doubt at most."""
    client, namespace = remote.cluster.client, remote.cluster.namespace
    try:
        config = await _told(client, namespace)
        claims = await client.list(CLAIMS, namespace=namespace, labels=OURS)
        volumes = doctor_volumes.bound(claims, await client.list(VOLUMES))
        drivers = await client.list(CSI_DRIVERS)
    except (KubeError, ValueError) as error:
        reason = (
            error.message if isinstance(error, KubeError) else "the settings of the controller are of another version"
        )
        return [doctor.skipped(check, reason) for check in (doctor_volumes.CACHING, doctor_volumes.OWNERS)]
    return [*doctor_volumes.caching(config, volumes), *doctor_volumes.owners(config, volumes, drivers)]


async def _told(client: KubeClient, namespace: str) -> ControllerConfig:
    """What the controller was told. Raises a KubeError, and ValueError for what this version does not know."""
    controller = await find_controller(client, namespace)
    name = settings_name(controller["spec"]["template"]["spec"])
    found = await client.get(CONFIG_MAPS, name, namespace=namespace)
    return ControllerConfig.model_validate_json(found["data"][names.SETTINGS_KEY])


def settings_name(pod: doctor.Object) -> str:
    """The ConfigMap that a controller's pod mounts for its settings; it has a name of its own for each content."""
    mounts = [mount for each in pod["containers"] for mount in each.get("volumeMounts", ())]
    volume = next((mount["name"] for mount in mounts if mount["mountPath"] == CONFIG_DIR), None)
    found = [each["configMap"]["name"] for each in pod.get("volumes", ()) if each["name"] == volume]
    if not found:
        raise ValueError("the controller mounts no settings")
    return str(found[0])


async def _rights(remote: Remote) -> Finding:
    allowed = {
        told: await remote.cluster.client.allowed(
            verb, resource, subresource=subresource, namespace=remote.cluster.namespace, name=name
        )
        for verb, resource, subresource, name, told in _RIGHTS
    }
    return doctor.rights(allowed)


async def _warnings(remote: Remote) -> Finding:
    found = await remote.cluster.client.list(EVENTS, namespace=remote.cluster.namespace, fields="type=Warning")
    return doctor.warnings(found, datetime.now(UTC))


async def _engine() -> Finding:
    try:
        version = await DockerClient().ready()
    except DockerFailed as error:
        return doctor.failed("docker engine", str(error), "start it; `nanoclaw host` does not start without it")
    return Finding(check="docker engine", verdict=Verdict.GOOD, evidence=f"answers, version {version}")


async def _service(remote: Remote, way: str) -> list[Finding]:
    try:
        answers = await remote.healthz()
    except NotReachable as error:
        nothing = "the service does not answer"
        return [
            doctor.failed("service", str(error), "look at the controller and its pods above"),
            doctor.skipped("token", nothing),
            doctor.skipped("controller's own checks", nothing),
        ]
    alive = (
        Finding(check="service", verdict=Verdict.GOOD, evidence=way)
        if answers
        else doctor.failed("service", "answers that it cannot go on", "restart the controller")
    )
    return [alive, await _token(remote), *await _own_checks(remote)]


async def _token(remote: Remote) -> Finding:
    try:
        groups = await remote.groups()
    except Refused as error:
        remedy = "set NANOCLAW_TOKEN to the installation's token" if error.status == 401 else "see `nanoclaw logs`"
        return doctor.failed("token", str(error), remedy)
    except CommandFailed as error:
        return doctor.failed("token", str(error), "set NANOCLAW_TOKEN, or ask for the right to read the Secret")
    return Finding(check="token", verdict=Verdict.GOOD, evidence=f"accepted; {len(groups)} groups")


async def _own_checks(remote: Remote) -> list[Finding]:
    try:
        return doctor.readiness(await remote.readiness())
    except CommandFailed as error:
        return [doctor.failed("controller's own checks", str(error), "see `nanoclaw logs`")]
