"""A namespace with the admission policies of a stack in force, on a real API server.

Not here: pods that are sent to it (`agent_pods`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import AlreadyExists, Forbidden, Target
from nanoclaw_runtime.kube.resources import JOBS, PODS, Resource
from nanoclaw_runtime.manifests.job import agent_job
from tests.infra.recording import configuration, manifests, record, settings
from tests.support.agent_pods import NODE_ROOT, Pod, plain
from tests.support.cluster import temporary_namespace
from tests.support.plans import plan

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
STRICT, DRY = [("fieldValidation", "Strict")], [("dryRun", "All")]


@dataclass(frozen=True)
class Guarded:
    """A namespace with the policies of one stack in force."""

    api: KubeClient
    namespace: str

    @property
    def controller(self) -> str:
        """The user that the controller is."""
        return f"system:serviceaccount:{self.namespace}:{names.CONTROLLER}"

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


@contextlib.contextmanager
def guarded_namespace(apiserver: ControlPlane, cut: dict[str, Any]) -> Iterator[str]:
    """Its name. The policies and bindings in it are as the Pulumi program declares them for this cut."""
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


async def in_force(guarded: Guarded) -> bool:
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
