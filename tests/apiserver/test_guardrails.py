"""The stack's admission policies on a real API server: what the runtime makes passes, whatever differs is refused."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.bridge import CARRIED_VOLUME, OWN_VOLUME, TOKEN_VOLUME, BridgeFacts
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern, Platform, Transport
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import AlreadyExists, Forbidden, Target
from nanoclaw_runtime.kube.resources import DEPLOYMENTS, JOBS, PODS, STATEFUL_SETS, Resource
from nanoclaw_runtime.manifests.job import agent_job
from tests.infra.recording import VARIABLES, configuration, manifests, record, settings
from tests.support import scc
from tests.support.cluster import temporary_namespace
from tests.support.plans import SHAPES, holder, plan

pytestmark = pytest.mark.apiserver

ADMISSION = "/apis/admissionregistration.k8s.io/v1"

JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
SET_CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"
KUBELET = "system:node:one"
ADMINISTRATOR = "ann"

ALLOWLIST = {
    "claims": [{"name": "library.docs"}, {"name": "drafts", "allowReadWrite": True}],
    "configMaps": [{"name": "prompts"}],
    "allowedRoots": [{"path": "/srv/docs"}],
}
NODE_ROOT = "/srv/nanoclaw"
RUNTIME_IMAGE = VARIABLES["NANOCLAW_RUNTIME_IMAGE"]
CUTS: dict[str, dict[str, Any]] = {
    **{layout.value: {"layout": layout.value} for layout in Layout},
    **{
        f"bridge-{layout.value}": {"layout": layout.value, "transport": "bridge"}
        for layout in (Layout.PER_TYPE, Layout.PER_GROUP)
    },
    "nodelocal": {
        "pattern": "nodelocal",
        "nodeRoot": NODE_ROOT,
        "mountAllowlist": ALLOWLIST | {"hostPathsOnNodes": True},
    },
    "fixed": {"layout": "per-group", "fixPermissions": True},
    "fixed-bridge": {"layout": "per-type", "fixPermissions": True, "transport": "bridge"},
    "node-folders": {"mountAllowlist": ALLOWLIST | {"hostPathsOnNodes": True}},
}
"""What a stack may say that changes the rules."""

Pod = dict[str, Any]


@dataclass(frozen=True)
class Guarded:
    """A namespace with the policies of one stack in force."""

    api: KubeClient
    namespace: str

    async def send(
        self,
        user: str,
        method: str,
        resource: Resource,
        body: Any,
        place: tuple[str, ...] = (),
        *,
        dry_run: bool = False,
    ) -> Any:
        """What the API server answers `user`, who may do everything as far as roles go."""
        kind = {"PATCH": "application/merge-patch+json"}.get(method, "application/json")
        headers = {"Impersonate-User": user, "Impersonate-Group": "system:masters", "Content-Type": kind}
        path, target = resource.path(self.namespace, *place), Target(method.lower(), resource.plural)
        return json.loads(
            await self.api.fetch(method, path, target, body=body, headers=headers, query=STRICT + DRY * dry_run)
        )

    async def make_pod(self, pod: Pod, user: str = JOB_CONTROLLER) -> Any:
        return await self.send(user, "POST", PODS, pod)


STRICT, DRY = [("fieldValidation", "Strict")], [("dryRun", "All")]


@pytest.fixture(scope="module")
def stacks(apiserver: ControlPlane) -> Iterator[Callable[[str], str]]:
    """Namespaces by the name of the cut, each made once: policies and bindings are as the Pulumi program declares."""
    with contextlib.ExitStack() as made:
        yield functools.cache(lambda cut: made.enter_context(_stack(apiserver, CUTS[cut])))


@contextlib.contextmanager
def _stack(apiserver: ControlPlane, cut: dict[str, Any]) -> Iterator[str]:
    with temporary_namespace(apiserver) as namespace:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
        apiserver.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
        declared = _policies(namespace, cut)
        for each in declared:
            apiserver.api.apply(_path(each), each)
        yield namespace
        for each in declared:
            apiserver.api.delete(_path(each))


def _policies(namespace: str, cut: dict[str, Any]) -> list[dict[str, Any]]:
    changed = settings("local")
    changed |= {"guardrails": {"enabled": True}, "namespace": {"name": namespace, "create": False}}
    said = {key: value for key, value in cut.items() if key != "layout"}
    changed["runtime"] = {"agent": {"image": "registry.example/agent:1"}, "mountAllowlist": ALLOWLIST} | said
    layout = cut.get("layout", Layout.PER_TYPE.value)
    config = configuration("local", {"nanoclaw:settings": changed, "nanoclaw:layout": layout})
    return [each for each in manifests(record("local", config)) if each["apiVersion"].startswith("admission")]


def _path(policy: dict[str, Any]) -> str:
    plural = {
        "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    }[policy["kind"]]
    return f"{ADMISSION}/{plural}/{policy['metadata']['name']}"


@pytest.fixture
def cut() -> str:
    return "per-type"


@pytest.fixture
async def guarded(stacks: Callable[[str], str], cut: str, admin: KubeClient) -> Guarded:
    """Policies take effect a moment after they are there."""
    ready = Guarded(admin, stacks(cut))
    async with asyncio.timeout(60):
        while not await _in_force(ready):
            await asyncio.sleep(0.1)
    return ready


async def _in_force(guarded: Guarded) -> bool:
    """Whether each of the policies refuses something."""
    requests = (
        ("POST", PODS, plain("probe-of-pods", **{labels.GROUP: "x"}), ()),
        ("POST", JOBS, agent_job(plan("main", "probe")), ()),
        ("PATCH", PODS, {"metadata": {"labels": {labels.GROUP: "x"}}}, ("probe",)),
    )
    with contextlib.suppress(AlreadyExists):
        await guarded.send(ADMINISTRATOR, "POST", PODS, plain("probe"))
    return all([await _refused(guarded, *request) for request in requests])


async def _refused(guarded: Guarded, *request: Any) -> bool:
    try:
        await guarded.send(ADMINISTRATOR, *request, dry_run=True)
    except Forbidden:
        return True
    return False


def plain(name: str, **marks: str) -> Pod:
    """A pod of somebody else."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": marks},
        "spec": {"containers": [{"name": "main", "image": "localhost/none:1"}]},
    }


def agent(shape: SessionPlan) -> Pod:
    """The pod that is made of a session's Job, or of the set of its group."""
    made = holder(shape)
    template = copy.deepcopy(made["spec"]["template"])
    owner = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": made["metadata"]["name"],
        "uid": "1",
        "controller": True,
    }
    named = {"name": f"{owner['name']}-0"} if made["kind"] == "StatefulSet" else {"generateName": f"{owner['name']}-"}
    metadata = template["metadata"] | named | {"ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def bridged(shape: SessionPlan) -> SessionPlan:
    """The same with a container beside the agent."""
    config = shape.config.model_copy(update={"transport": Transport.BRIDGE, "bridge_image": RUNTIME_IMAGE})
    return replace(shape, config=config, bridge=BridgeFacts("nanoclaw-controller.x.svc:8443", "-----BEGIN…"))


def fixed(shape: SessionPlan) -> SessionPlan:
    """The same with a container that gives it its volumes."""
    return replace(shape, config=shape.config.model_copy(update={"fix_permissions": True}))


def on_node(group: str, **more: Any) -> SessionPlan:
    """A group of the pattern `nodelocal`."""
    return replace(plan(group, "s1", pattern=Pattern.NODELOCAL, node_root=NODE_ROOT, **more), node="worker-1")


def as_set(shape: SessionPlan) -> SessionPlan:
    return replace(shape, config=shape.config.model_copy(update={"pattern": Pattern.STATEFULSET}))


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
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    of_set = shape.config.pattern is Pattern.STATEFULSET
    await guarded.send(controller, "POST", STATEFUL_SETS if of_set else JOBS, holder(shape), dry_run=True)
    pod = agent(shape)
    if shape.config.platform is Platform.OPENSHIFT:
        pod = scc.admit(pod, scc.PROJECT).pod
    await guarded.send(SET_CONTROLLER if of_set else JOB_CONTROLLER, "POST", PODS, pod, dry_run=True)


@pytest.mark.parametrize("cut", ["node-folders"])
async def test_a_folder_of_the_node_below_an_allowed_root_is_let_through(guarded: Guarded) -> None:
    extra = (ExtraMount("/workspace/extra/docs", host_path="/srv/docs/2026"),)
    await guarded.make_pod(agent(plan("team", "s1", extra=extra)))


async def test_the_largest_pod_is_judged_within_the_servers_budget(guarded: Guarded) -> None:
    extra = tuple(ExtraMount(f"/workspace/extra/{each}", claim="drafts", sub_path=f"{each}") for each in range(64))
    env = {f"SETTING_{each}": "x" * 100 for each in range(200)}
    await guarded.make_pod(agent(plan("team", "s1", extra=extra, env=env)))


def spec(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"].update(fields)


def container(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def security(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"]["containers"][0]["securityContext"].update(fields)


def metadata(field: str, **entries: str) -> Callable[[Pod], None]:
    return lambda pod: pod["metadata"][field].update({key.replace("_", "/"): value for key, value in entries.items()})


def volume(name: str, sub_path: str | None = None, read_only: bool = False, **source: Any) -> Callable[[Pod], None]:
    """One more volume, mounted."""

    def add(pod: Pod) -> None:
        if source:
            pod["spec"]["volumes"].append({"name": name, **source})
        mount = {"name": name, "mountPath": f"/workspace/extra/{name}", "readOnly": read_only}
        pod["spec"]["containers"][0]["volumeMounts"].append(mount | ({"subPath": sub_path} if sub_path else {}))

    return add


def claim(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def writable(name: str) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            if mount["name"] == name:
                mount["readOnly"] = False

    return change


def second(kind: str) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"].setdefault(kind, []).append(pod["spec"]["containers"][0] | {"name": "other"})


def without(*path: Any) -> Callable[[Pod], None]:
    def remove(pod: Pod) -> None:
        place: Any = pod
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return remove


SECRET = {"secretKeyRef": {"name": "nanoclaw-credentials", "key": "ANTHROPIC_API_KEY"}}
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


def first(change: Callable[[Pod], None], position: int = 0) -> Callable[[Pod], None]:
    """The change, of a container that starts before the agent."""

    def changed(pod: Pod) -> None:
        spec = pod["spec"]
        agents, spec["containers"] = spec["containers"], [spec["initContainers"][position]]
        change(pod)
        spec["initContainers"][position], spec["containers"] = spec["containers"][0], agents

    return changed


def source(**fields: Any) -> Callable[[Pod], None]:
    """Another token in the place of the bridge's."""

    def change(pod: Pod) -> None:
        (token,) = (each for each in pod["spec"]["volumes"] if each["name"] == TOKEN_VOLUME)
        token["projected"]["sources"] = [fields]

    return change


WIDE = {"path": "token", "audience": "https://kubernetes.default.svc", "expirationSeconds": 600}

BRIDGED = [
    pytest.param(without("spec", "initContainers"), "containers agent and bridge and no other", id="no bridge"),
    pytest.param(second("initContainers"), "agent and bridge and no other.*other", id="one container more"),
    pytest.param(first(container(image="registry.example/other:1")), "change it in", id="another image"),
    pytest.param(first(container(command=["sh", "-c", "cat"])), "own entry point", id="another command"),
    pytest.param(first(container(command=None)), "own entry point", id="the controller's own command"),
    pytest.param(first(container(args=["x"])), "own entry point", id="arguments"),
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


@pytest.mark.parametrize("cut", ["bridge-per-group"])
async def test_an_agent_does_not_see_its_claim_whole_as_the_bridge_does(guarded: Guarded) -> None:
    pod = agent(bridged(plan("team", "s1", layout=Layout.PER_GROUP)))
    volume("nanoclaw-folder-team")(pod)
    with pytest.raises(Forbidden, match="folders of their own group"):
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


def folder(name: str, path: str) -> Callable[[Pod], None]:
    """Another folder of the node behind a volume that is there."""

    def change(pod: Pod) -> None:
        (found,) = (each for each in pod["spec"]["volumes"] if each["name"] == name)
        found["hostPath"]["path"] = path

    return change


ON_NODE = [
    pytest.param(folder("nanoclaw-group-team", f"{NODE_ROOT}/groups/other"), id="other group"),
    pytest.param(folder("nanoclaw-group-team", f"{NODE_ROOT}/groups/global"), id="all groups' memory, to write"),
    pytest.param(folder("nanoclaw-group-team", f"{NODE_ROOT}/groups/team/deeper"), id="a folder of its own folder"),
    pytest.param(folder("nanoclaw-group-team", NODE_ROOT), id="all groups"),
    pytest.param(folder("nanoclaw-group-team", "/"), id="the node"),
    pytest.param(folder("nanoclaw-group-team", "/srv/docs/2026"), id="an allowed folder by a name of ours"),
    pytest.param(volume("store", hostPath={"path": f"{NODE_ROOT}/store"}), id="the database"),
    pytest.param(volume("nanoclaw-store", hostPath={"path": f"{NODE_ROOT}/store"}), id="the database by our name"),
    pytest.param(volume("others", hostPath={"path": f"{NODE_ROOT}/groups/other"}), id="other group by another name"),
    pytest.param(volume("node", hostPath={"path": "/srv"}), id="what holds all groups"),
]


@pytest.mark.parametrize("cut", ["nodelocal"])
@pytest.mark.parametrize("mutate", ON_NODE)
async def test_of_a_nodes_disk_a_group_sees_its_own_folders(guarded: Guarded, mutate: Callable[[Pod], None]) -> None:
    pod = agent(on_node("team"))
    mutate(pod)
    with pytest.raises(Forbidden, match=r"(no folder of a node but those|see the folders) of their own group"):
        await guarded.make_pod(pod)


@pytest.mark.parametrize("cut", ["nodelocal"])
async def test_beside_its_own_folders_a_group_on_a_node_sees_what_is_allowed(guarded: Guarded) -> None:
    extra = (ExtraMount("/workspace/extra/docs", host_path="/srv/docs/2026"),)
    await guarded.make_pod(agent(on_node("team", extra=extra)))
    pod = agent(on_node("team"))
    volume("nanoclaw-group-team", **claim("nanoclaw-group-team"))(pod)
    pod["spec"]["volumes"].pop()
    pod["spec"]["volumes"].append({"name": "kept", **claim("nanoclaw-group-team")})
    with pytest.raises(Forbidden, match="claims of their own group"):
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


@pytest.mark.parametrize("cut", ["per-group"])
async def test_one_claim_a_group_is_that_groups_alone(guarded: Guarded) -> None:
    pod = agent(plan("team", "s1", layout=Layout.PER_GROUP))
    volume("nanoclaw-folder-other", "group", **claim("nanoclaw-folder-other"))(pod)
    with pytest.raises(Forbidden, match="claims of their own group"):
        await guarded.make_pod(pod)


SHARED_FOLDERS = [
    ("groups/other", "groups/other"),
    ("data/ipc/main", "data/ipc/main"),
    ("groups", "groups"),
    ("groups/team-two", "groups/team-two"),
    ("project", "project"),
    (None, "nanoclaw-data/"),
]


@pytest.mark.parametrize("cut", ["shared"])
@pytest.mark.parametrize(("sub_path", "shown"), SHARED_FOLDERS)
async def test_of_one_claim_for_all_a_group_sees_its_own_folders(
    guarded: Guarded, sub_path: str | None, shown: str
) -> None:
    pod = agent(plan("team", "s1", layout=Layout.SHARED))
    volume("nanoclaw-data", sub_path, read_only=True)(pod)
    with pytest.raises(Forbidden, match=f"folders of their own group.*{shown}"):
        await guarded.make_pod(pod)


@pytest.mark.parametrize("cut", ["shared"])
async def test_a_path_that_is_computed_is_refused(guarded: Guarded) -> None:
    pod = agent(plan("team", "s1", layout=Layout.SHARED))
    mount = {"name": "nanoclaw-data", "mountPath": "/x", "subPathExpr": "groups/team"}
    pod["spec"]["containers"][0]["volumeMounts"].append(mount)
    with pytest.raises(Forbidden, match="folders of their own group"):
        await guarded.make_pod(pod)


@pytest.mark.parametrize("cut", ["shared"])
async def test_what_all_groups_see_of_the_one_claim_is_read_only(guarded: Guarded) -> None:
    pod = agent(plan("team", "s1", layout=Layout.SHARED))
    volume("nanoclaw-data", "groups/global/notes")(pod)
    with pytest.raises(Forbidden, match="mounted read-only"):
        await guarded.make_pod(pod)


@pytest.mark.parametrize("cut", ["node-folders"])
@pytest.mark.parametrize("path", ["/", "/srv", "/srv/docs-of-others", "/var/lib/nanoclaw/groups/team"])
async def test_a_folder_of_the_node_outside_the_allowed_roots_is_refused(guarded: Guarded, path: str) -> None:
    extra = (ExtraMount("/workspace/extra/docs", host_path=path),)
    with pytest.raises(Forbidden, match=r"mountAllowlist\.allowedRoots"):
        await guarded.make_pod(agent(plan("team", "s1", extra=extra)))


@pytest.mark.parametrize(
    "user", [ADMINISTRATOR, KUBELET, "system:serviceaccount:kube-system:replicaset-controller", "{}"]
)
async def test_nobody_but_the_job_controller_makes_pods_of_agents(guarded: Guarded, user: str) -> None:
    user = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}" if user == "{}" else user
    with pytest.raises(Forbidden, match=rf"Jobs or StatefulSets of nanoclaw-controller alone.*made by {user}"):
        await guarded.make_pod(agent(SHAPES["task"]), user)


def job(**changes: Any) -> dict[str, Any]:
    """A Job of somebody else, with something of ours in it."""
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "theirs", "labels": changes.get("labels", {})},
        "spec": {"template": {"metadata": {"labels": changes.get("inner", {})}, "spec": plain("x")["spec"]}},
    }
    made["spec"]["template"]["spec"] |= {"restartPolicy": "Never"} | changes.get("spec", {})
    return made


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"labels": labels.component(labels.AGENT)}, id="component"),
        pytest.param({"inner": labels.component(labels.AGENT)}, id="component of its pods"),
        pytest.param({"inner": {labels.SESSION: "s1"}}, id="session of its pods"),
        pytest.param({"spec": {"serviceAccountName": names.AGENT_ACCOUNT}}, id="account of its pods"),
    ],
)
async def test_nobody_but_the_controller_makes_jobs_of_agents(guarded: Guarded, changes: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match=rf"made by nanoclaw-controller alone.*made by {ADMINISTRATOR}"):
        await guarded.send(ADMINISTRATOR, "POST", JOBS, job(**changes))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_whatever_job_the_controller_makes_is_an_agents(guarded: Guarded, method: str) -> None:
    """Or else one without a label of ours could mount every Secret of the namespace, and no rule would look at it."""
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    key = {"volumes": [{"name": "key", "secret": {"secretName": "nanoclaw-credentials"}}]}
    made, place = job(spec=key), ()
    if method == "PATCH":
        made["metadata"]["name"] = "taken-over"
        await guarded.send(ADMINISTRATOR, "POST", JOBS, made)
        made, place = {"metadata": {"annotations": {"note": "mine"}}}, ("taken-over",)
    with pytest.raises(Forbidden, match=r"makes objects of agents alone.*account"):
        await guarded.send(controller, method, JOBS, made, place)


OWN = {"name": names.CONTROLLER_CONTAINER, "image": "registry.example/controller:1"}
SCRATCH = {"name": "scratch", "emptyDir": {}}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"containers": [OWN | {"image": "registry.example/other:1"}]}, id="image"),
        pytest.param({"containers": [OWN | {"command": ["sh"]}]}, id="command"),
        pytest.param({"containers": [OWN | {"securityContext": {"runAsUser": 0}}]}, id="rights"),
        pytest.param({"containers": [OWN | {"env": [{"name": "KEY", "valueFrom": SECRET}]}]}, id="Secret as variable"),
        pytest.param({"containers": [OWN, OWN | {"name": "other"}]}, id="second container"),
        pytest.param({"initContainers": [OWN | {"name": "other"}]}, id="init container"),
        pytest.param({"serviceAccountName": "default"}, id="account"),
        pytest.param({"hostPID": True}, id="node's processes"),
        pytest.param({"hostNetwork": True}, id="node's network"),
        pytest.param({"securityContext": {"runAsUser": 0}}, id="root"),
        pytest.param({"volumes": [SCRATCH, {"name": "host", "hostPath": {"path": "/"}}]}, id="folder of the node"),
        pytest.param({"volumes": [SCRATCH, {"name": "key", "secret": {"secretName": "x"}}]}, id="Secret"),
        pytest.param({"volumes": [SCRATCH, {"name": "theirs", **claim("theirs")}]}, id="somebody's claim"),
    ],
)
async def test_of_its_own_deployment_the_controller_changes_which_claims_it_mounts_and_nothing_else(
    guarded: Guarded, changed: dict[str, Any]
) -> None:
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    marks = labels.component(labels.CONTROLLER)
    pod = {"containers": [OWN], "volumes": [SCRATCH], "serviceAccountName": names.CONTROLLER}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": names.CONTROLLER, "labels": marks},
        "spec": {"selector": {"matchLabels": marks}, "template": {"metadata": {"labels": marks}, "spec": pod}},
    }
    with contextlib.suppress(AlreadyExists):
        await guarded.send(ADMINISTRATOR, "POST", DEPLOYMENTS, body)

    async def patch(user: str, spec: dict[str, Any]) -> None:
        inner = {"spec": {"template": {"spec": spec}}}
        await guarded.send(user, "PATCH", DEPLOYMENTS, inner, (names.CONTROLLER,), dry_run=True)

    with pytest.raises(Forbidden, match="which claims of groups it mounts"):
        await patch(controller, changed)
    await patch(ADMINISTRATOR, changed)
    mount = {"name": "nanoclaw-group-new", "mountPath": "/data/groups/new"}
    volumes = [SCRATCH, {"name": mount["name"], **claim(mount["name"])}]
    await patch(controller, {"containers": [OWN | {"volumeMounts": [mount]}], "volumes": volumes})


@pytest.mark.parametrize("cut", ["nodelocal"])
async def test_sets_of_agents_need_groups_with_claims(guarded: Guarded) -> None:
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    with pytest.raises(Forbidden, match="pattern 'nodelocal' agents run in Jobs only"):
        await guarded.send(controller, "POST", STATEFUL_SETS, holder(SHAPES["statefulset"]))


async def test_the_controller_alone_takes_a_set_over_for_the_next_session(guarded: Guarded) -> None:
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    first, second = (replace(SHAPES["statefulset"], ref=SessionRef("team", each)) for each in ("s1", "s2"))
    name = (await guarded.send(controller, "POST", STATEFUL_SETS, holder(first)))["metadata"]["name"]
    following = {"metadata": holder(second)["metadata"], "spec": {"template": holder(second)["spec"]["template"]}}

    await guarded.send(controller, "PATCH", STATEFUL_SETS, {"spec": {"replicas": 0}}, (name,))
    with pytest.raises(Forbidden, match="delete the object instead"):
        await guarded.send(ADMINISTRATOR, "PATCH", STATEFUL_SETS, following, (name,))
    await guarded.send(controller, "PATCH", STATEFUL_SETS, following, (name,))
    other = {"spec": {"template": {"spec": {"serviceAccountName": "default"}}}}
    with pytest.raises(Forbidden, match=r"makes objects of agents alone.*default"):
        await guarded.send(controller, "PATCH", STATEFUL_SETS, other, (name,))


async def test_what_is_an_agents_stays_as_it_is_and_the_rest_goes_on(guarded: Guarded) -> None:
    pod = (await guarded.make_pod(agent(SHAPES["task"])))["metadata"]["name"]
    other = (await guarded.send(ADMINISTRATOR, "POST", PODS, plain("other")))["metadata"]["name"]

    async def patch(name: str, body: Any, subresource: str = "") -> None:
        await guarded.send(ADMINISTRATOR, "PATCH", PODS, body, (name, subresource))

    stays = "neither added to a pod nor changed nor taken away"
    for body in (
        {"labels": {labels.GROUP: "main"}},
        {"labels": {labels.GROUP: None}},
        {"labels": {labels.COMPONENT: "controller"}},
        {"annotations": {labels.FOLDER: "main"}},
        {"labels": {"nanoclaw.dev/new": "x"}},
    ):
        with pytest.raises(Forbidden, match=stays):
            await patch(pod, {"metadata": body})
    for marks in ({labels.GROUP: "main"}, labels.component(labels.AGENT)):
        with pytest.raises(Forbidden, match=stays):
            await patch(other, {"metadata": {"labels": marks}})
    image = [{"name": "agent", "image": "registry.example/other:1"}]
    made = await guarded.api.get(PODS, pod, namespace=guarded.namespace)
    image = [made["spec"]["containers"][0] | image[0]]
    with pytest.raises(Forbidden, match="image of an agent that runs is not changed"):
        await patch(pod, {"spec": {"containers": image}})
    debug = [{"name": "debug", "image": "busybox:1", "targetContainerName": "agent"}]
    with pytest.raises(Forbidden, match="could read what it was given"):
        await patch(pod, {"spec": {"ephemeralContainers": debug}}, "ephemeralcontainers")

    await patch(pod, {"metadata": {"labels": {"team": "blue"}, "finalizers": ["example.org/kept"]}})
    await patch(pod, {"metadata": {"finalizers": None}})
    await patch(other, {"metadata": {"labels": {"app": "x"}}})
    await patch(
        other, {"spec": {"ephemeralContainers": [debug[0] | {"targetContainerName": "main"}]}}, "ephemeralcontainers"
    )
    await guarded.send(KUBELET, "PATCH", PODS, {"status": {"phase": "Succeeded"}}, (pod, "status"))
    for name in (pod, other):
        await guarded.send(ADMINISTRATOR, "DELETE", PODS, None, (name,))


async def test_a_job_of_an_agent_is_not_made_another_groups(guarded: Guarded) -> None:
    controller = f"system:serviceaccount:{guarded.namespace}:{names.CONTROLLER}"
    made = await guarded.send(controller, "POST", JOBS, agent_job(plan("team", "kept")))
    place = (made["metadata"]["name"],)
    with pytest.raises(Forbidden, match="delete the object instead"):
        await guarded.send(ADMINISTRATOR, "PATCH", JOBS, {"metadata": {"labels": {labels.GROUP: "main"}}}, place)
    await guarded.send(ADMINISTRATOR, "PATCH", JOBS, {"metadata": {"annotations": {"note": "seen"}}}, place)
    collector = "system:serviceaccount:kube-system:generic-garbage-collector"
    await guarded.send(collector, "PATCH", JOBS, {"metadata": {"finalizers": ["foregroundDeletion"]}}, place)


async def test_another_namespace_is_nobodys_business(guarded: Guarded, namespace: str) -> None:
    await Guarded(guarded.api, namespace).make_pod(plain("theirs", **labels.component(labels.AGENT)), ADMINISTRATOR)
