"""The admission rules for agents' pods: what the runtime makes passes, whatever differs is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.bridge import CARRIED_VOLUME, OWN_VOLUME, STARTED, TOKEN_VOLUME
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern, Platform, Transport
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.kube.errors import Forbidden
from nanoclaw_runtime.kube.resources import JOBS, PODS, STATEFUL_SETS
from tests.support import scc
from tests.support.agent_pods import (
    SECRET,
    Pod,
    agent,
    as_set,
    bridged,
    claim,
    container,
    first,
    fixed,
    metadata,
    second,
    security,
    source,
    spec,
    volume,
    without,
    writable,
)
from tests.support.guarded import CUTS, JOB_CONTROLLER, SET_CONTROLLER, Guarded
from tests.support.plans import SHAPES, holder, plan

pytestmark = pytest.mark.apiserver


def shapes(cut: str) -> Iterator[tuple[str, SessionPlan]]:
    """Everything the runtime makes where a stack says this, by either pattern of its groups."""
    said = CUTS[cut]
    for name, shape in SHAPES.items():
        if shape.config.transport is Transport.BRIDGE and said.get("transport") != Transport.BRIDGE:
            continue  # what another stack makes
        if (shape.config.pattern is Pattern.NODELOCAL) != (said.get("pattern") == Pattern.NODELOCAL):
            continue
        if shape.config.pattern is Pattern.NODELOCAL:
            yield name, shape
        elif shape.config.layout.value == said.get("layout", Layout.PER_TYPE.value):
            if said.get("fixPermissions") and shape.config.platform is Platform.OPENSHIFT:
                continue
            made = bridged(shape) if said.get("transport") == Transport.BRIDGE else shape
            made = fixed(made) if said.get("fixPermissions") else made
            yield name, made
            yield f"{name}-as-set", as_set(made)


OF_CUT = [pytest.param(cut, shape, id=f"{cut}-{name}") for cut in CUTS for name, shape in shapes(cut)]


@pytest.mark.parametrize(("cut", "shape"), OF_CUT)
async def test_everything_the_runtime_makes_is_let_through(guarded: Guarded, shape: SessionPlan) -> None:
    of_set = shape.config.pattern is Pattern.STATEFULSET
    await guarded.send(guarded.controller, "POST", STATEFUL_SETS if of_set else JOBS, holder(shape), dry_run=True)
    pod = agent(shape)
    if shape.config.platform is Platform.OPENSHIFT:
        pod = scc.admit(pod, scc.PROJECT).pod
    await guarded.send(SET_CONTROLLER if of_set else JOB_CONTROLLER, "POST", PODS, pod, dry_run=True)


async def test_the_largest_pod_is_judged_within_the_servers_budget(guarded: Guarded) -> None:
    extra = tuple(ExtraMount(f"/workspace/extra/{each}", claim="drafts", sub_path=f"{each}") for each in range(64))
    env = {f"SETTING_{each}": "x" * 100 for each in range(200)}
    await guarded.make_pod(agent(plan("team", "s1", extra=extra, env=env)))


SECURED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
PINGS = {"name": "net.ipv4.ping_group_range", "value": "0 2000"}

ROOT = {
    "runAsUser": 0,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}]}

MUTATIONS = [
    pytest.param(spec(serviceAccountName="default"), "run as the account nanoclaw-agent.*default", id="account"),
    pytest.param(spec(automountServiceAccountToken=True), "automountServiceAccountToken to false", id="token"),
    pytest.param(without("spec", "automountServiceAccountToken"), "automountServiceAccountToken", id="token unsaid"),
    pytest.param(without("metadata", "ownerReferences"), "belongs to a Job", id="no Job"),
    pytest.param(
        lambda pod: pod["metadata"]["ownerReferences"][0].update(kind="ReplicaSet", apiVersion="apps/v1"),
        "belongs to a Job",
        id="owned by another kind",
    ),
    pytest.param(metadata("labels", **{labels.GROUP: "other"}), "both say the same.*other, folder team", id="group"),
    pytest.param(metadata("annotations", **{labels.FOLDER: "team/"}), "both say the same", id="no folder"),
    pytest.param(metadata("annotations", **{labels.FOLDER: "Team"}), "both say the same", id="folded folder"),
    pytest.param(without("metadata", "labels", labels.GROUP), "both say the same", id="no group"),
    pytest.param(without("metadata", "labels", labels.COMPONENT), "both say the same", id="no component"),
    pytest.param(second("containers"), "container agent and no other.*agent, other", id="sidecar"),
    pytest.param(second("initContainers"), "container agent and no other", id="init container"),
    pytest.param(container(name="other"), "container agent and no other", id="name of the container"),
    pytest.param(container(image="registry.example/agent:2"), r"the image registry.example/agent:1 .*:2\)", id="image"),
    pytest.param(container(command=["sh"]), "own entry point", id="command"),
    pytest.param(container(args=["x"]), "own entry point", id="arguments"),
    pytest.param(
        container(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}), "own entry point", id="command at the start"
    ),
    pytest.param(container(env=[{"name": "KEY", "valueFrom": SECRET}]), "secrets go over stdin", id="variable"),
    pytest.param(container(envFrom=[{"secretRef": {"name": "x"}}]), "secrets go over stdin", id="variables"),
    pytest.param(container(resources={"limits": {"cpu": "1"}}), "limits of cpu and memory", id="no limit of memory"),
    pytest.param(without("spec", "containers", 0, "resources"), "limits of cpu and memory", id="no limits"),
    pytest.param(spec(hostNetwork=True), "out of the node's network", id="hostNetwork"),
    pytest.param(spec(hostPID=True), "out of the node's network", id="hostPID"),
    pytest.param(spec(hostIPC=True), "out of the node's network", id="hostIPC"),
    pytest.param(spec(shareProcessNamespace=True), "others' processes", id="processes of the container beside it"),
    pytest.param(container(ports=[{"containerPort": 80, "hostPort": 80}]), "out of the node's network", id="hostPort"),
    pytest.param(security(allowPrivilegeEscalation=True), "never privileged", id="escalation"),
    pytest.param(security(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}), "drop ALL", id="added capability"),
    pytest.param(security(capabilities={}), "drop ALL", id="capabilities kept"),
    pytest.param(without("spec", "containers", 0, "securityContext"), "never privileged", id="nothing said"),
    pytest.param(spec(securityContext={}), "never root", id="maybe root"),
    pytest.param(spec(securityContext={"runAsNonRoot": True, "runAsUser": 0}), "never root", id="root"),
    pytest.param(security(runAsUser=0), "never root", id="root in the container"),
    pytest.param(security(runAsNonRoot=False), "never root", id="maybe root in the container"),
    pytest.param(lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"), "system calls", id="no seccomp"),
    pytest.param(security(seccompProfile={"type": "Unconfined"}), "system calls", id="no seccomp in the container"),
    pytest.param(spec(securityContext=SECURED | {"sysctls": [PINGS]}), "system calls", id="setting of the kernel"),
    pytest.param(security(readOnlyRootFilesystem=False), "readOnlyRootFilesystem to true", id="root file system"),
    pytest.param(security(seLinuxOptions={"type": "spc_t"}), "SELinux and AppArmor", id="outside of SELinux"),
    pytest.param(
        spec(securityContext=SECURED | {"seLinuxOptions": {"role": "sysadm_r"}}),
        "SELinux and AppArmor",
        id="SELinux role",
    ),
    pytest.param(security(appArmorProfile={"type": "Unconfined"}), "SELinux and AppArmor", id="outside of AppArmor"),
    pytest.param(volume("keys", secret={"secretName": "x"}), "no Secret, token or device.*keys", id="Secret"),
    pytest.param(volume("token", projected=TOKEN), "no Secret, token or device", id="projected token"),
    pytest.param(volume("nfs", nfs={"server": "x", "path": "/"}), "no Secret, token or device", id="NFS"),
    pytest.param(volume("prompts", configMap={"name": "nanoclaw-groups"}), "mountAllowlist.configMaps", id="ConfigMap"),
    pytest.param(volume("host", hostPath={"path": "/srv/docs"}), "no folder of a node.*/srv/docs", id="hostPath"),
    pytest.param(volume("claim-x", **claim("theirs")), "mountAllowlist.claims.*theirs", id="claim not allowed"),
    pytest.param(
        volume("nanoclaw-group-other", **claim("nanoclaw-group-other")), "of their own group.*other", id="other group"
    ),
    pytest.param(volume("x", **claim("nanoclaw-ipc-main")), "of their own group", id="main's mailbox"),
    pytest.param(volume("x", **claim("nanoclaw-project")), "of their own group", id="the project"),
    pytest.param(volume("nanoclaw-store", **claim("nanoclaw-store")), "of their own group", id="database"),
    pytest.param(volume("x", **claim("nanoclaw-group-team")), "called like the claim", id="claim by another name"),
    pytest.param(writable("nanoclaw-global"), "mounted read-only", id="writable memory of all"),
]


@pytest.mark.parametrize(("mutate", "message"), MUTATIONS)
async def test_a_pod_of_another_shape_is_refused(guarded: Guarded, mutate: Callable[[Pod], None], message: str) -> None:
    pod = agent(SHAPES["task"])
    mutate(pod)
    with pytest.raises(Forbidden, match=message):
        await guarded.make_pod(pod)


WIDE = {"path": "token", "audience": "https://kubernetes.default.svc", "expirationSeconds": 600}


def hook(*command: str) -> dict[str, Any]:
    return {"postStart": {"exec": {"command": list(command)}}}


BRIDGED = [
    pytest.param(without("spec", "initContainers"), "containers agent and bridge and no other", id="no bridge"),
    pytest.param(second("initContainers"), "agent and bridge and no other.*other", id="one container more"),
    pytest.param(first(container(image="registry.example/other:1")), "change it in", id="another image"),
    pytest.param(first(container(command=["sh", "-c", "cat"])), "own entry point", id="another command"),
    pytest.param(first(container(command=None)), "own entry point", id="the controller's own command"),
    pytest.param(first(container(args=["x"])), "own entry point", id="arguments"),
    pytest.param(first(container(lifecycle=None)), "own entry point", id="nothing behind its start"),
    pytest.param(first(container(lifecycle=hook("sh", "-c", "id"))), "own entry point", id="another command then"),
    pytest.param(first(container(lifecycle=hook(*STARTED, "x"))), "own entry point", id="a word more then"),
    pytest.param(
        first(container(lifecycle=hook(*STARTED) | {"preStop": {"sleep": {"seconds": 1}}})),
        "own entry point",
        id="something before its end",
    ),
    pytest.param(container(lifecycle=hook(*STARTED)), "own entry point", id="the same in the agent"),
    pytest.param(first(container(startupProbe={"exec": {"command": ["test"]}})), "take its probes away", id="probe"),
    pytest.param(first(security(runAsUser=0)), "never root", id="root"),
    pytest.param(first(security(capabilities={"drop": ["ALL"], "add": ["CHOWN"]})), "drop ALL", id="capability"),
    pytest.param(first(security(readOnlyRootFilesystem=False)), "readOnlyRootFilesystem", id="root file system"),
    pytest.param(first(container(env=[{"name": "KEY", "valueFrom": SECRET}])), "over stdin", id="Secret"),
    pytest.param(source(serviceAccountToken=WIDE), "no Secret, token or device", id="a token for the API server"),
    pytest.param(source(serviceAccountToken={"path": "token"}), "no Secret, token or device", id="a token for all"),
    pytest.param(source(secret={"name": "nanoclaw-credentials"}), "no Secret, token or device", id="a Secret in it"),
    pytest.param(volume("token", projected=TOKEN), "no Secret, token or device", id="one more token"),
    pytest.param(volume(TOKEN_VOLUME), "container bridge's alone", id="the token for the agent"),
    pytest.param(volume(OWN_VOLUME), "container bridge's alone", id="the ledger for the agent"),
    pytest.param(volume(CARRIED_VOLUME), "container bridge's alone", id="what is carried, to write"),
    pytest.param(volume("nanoclaw-global", **claim("nanoclaw-global")), "of their own group", id="all groups' memory"),
    pytest.param(volume("nanoclaw-group-other", **claim("nanoclaw-group-other")), "of their own", id="other group"),
]


@pytest.mark.parametrize("cut", ["bridge-per-type"])
@pytest.mark.parametrize(("mutate", "message"), BRIDGED)
async def test_a_bridge_of_another_shape_is_refused(
    guarded: Guarded, mutate: Callable[[Pod], None], message: str
) -> None:
    pod = agent(bridged(SHAPES["task"]))
    mutate(pod)
    with pytest.raises(Forbidden, match=message):
        await guarded.make_pod(pod)


FIXED = [
    pytest.param(first(container(command=["sh", "-c", "id"])), "own entry point", id="another command"),
    pytest.param(first(container(command=["chown", "-R", "0", "/"])), "own entry point", id="another owner"),
    pytest.param(
        first(security(capabilities={"drop": ["ALL"], "add": ["CHOWN", "SYS_ADMIN"]})), "drop ALL", id="capability"
    ),
    pytest.param(container(securityContext=ROOT), "never root", id="an agent that is root"),
    pytest.param(
        first(volume("nanoclaw-folder-other", "group", **claim("nanoclaw-folder-other"))), "own group", id="other group"
    ),
]


@pytest.mark.parametrize("cut", ["fixed"])
@pytest.mark.parametrize(("mutate", "message"), FIXED)
async def test_who_gives_volumes_to_their_user_does_nothing_else(
    guarded: Guarded, mutate: Callable[[Pod], None], message: str
) -> None:
    pod = agent(fixed(plan("team", "s1", layout=Layout.PER_GROUP)))
    mutate(pod)
    with pytest.raises(Forbidden, match=message):
        await guarded.make_pod(pod)


PROBES = [
    pytest.param({"livenessProbe": {"exec": {"command": ["test", "-e", "/x"]}}}, id="liveness"),
    pytest.param({"readinessProbe": {"exec": {"command": ["sh", "-c", "cat /tmp/input.json"]}}}, id="a shell"),
    pytest.param({"startupProbe": {"tcpSocket": {"port": 80}}}, id="a port"),
    pytest.param({"readinessProbe": {"httpGet": {"port": 80, "host": "192.0.2.1"}}}, id="a call of the kubelet's"),
]


@pytest.mark.parametrize("probe", PROBES)
async def test_nothing_is_run_beside_an_agent_but_a_look_for_a_file(guarded: Guarded, probe: dict[str, Any]) -> None:
    pod = agent(SHAPES["task"])
    container(**probe)(pod)
    with pytest.raises(Forbidden, match="take its probes away"):
        await guarded.make_pod(pod)
