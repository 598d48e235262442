"""A stack's prerequisites on a real API server: what is there is good, what is not is told with its remedy."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_infra import needs as reader
from nanoclaw_runtime.cli import prerequisites_asked as asked
from nanoclaw_runtime.cli import prerequisites_cluster as cluster
from nanoclaw_runtime.cli.doctor import Finding, Verdict
from nanoclaw_runtime.cli.installation import SECRETS
from nanoclaw_runtime.cli.prerequisites import QUOTAS, SERVICES, STORAGE_CLASSES, absent, prerequisites
from nanoclaw_runtime.cli.prerequisites_asked import ENDPOINT_SLICES
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.needs import Needs
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import CLAIMS, PODS, Resource
from tests.apiserver.conftest import ACCOUNTS, write_kubeconfig
from tests.support.command_line import CommandLine

pytestmark = pytest.mark.apiserver

NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
CUSTOM = Resource("CustomResourceDefinition", "customresourcedefinitions", "/apis/apiextensions.k8s.io/v1", False)
DAEMON_SETS = Resource("DaemonSet", "daemonsets", "/apis/apps/v1")
LIMITS = Resource("LimitRange", "limitranges")
FILES, BLOCK = "nfs.csi.k8s.io", "ebs.csi.aws.com"


class Place:
    """A stack for this test's namespace, and everything it may find there."""

    def __init__(self, admin: KubeClient, kubeconfig: Path, namespace: str, project: Path) -> None:
        self.admin, self.namespace, self.project = admin, namespace, project
        self.kubeconfig, self.settings = kubeconfig, {}
        self._cluster_wide: list[tuple[Resource, str]] = []
        (project / "stacks").mkdir(parents=True)
        (project / "Pulumi.yaml").write_text((reader.CHECKOUT / "Pulumi.yaml").read_text())

    def write(self, **settings) -> None:
        """The stack file: what every stack has, and `settings` beside it."""
        common = {
            "cluster": {"kubeconfig": str(self.kubeconfig)},
            "namespace": {"name": self.namespace, "create": False},
            "storage": {"storageClass": f"{self.namespace}-files", "databaseStorageClass": f"{self.namespace}-block"},
            "controller": {"image": "registry.example/runtime:1"},
            "runtime": {"agent": {"image": "registry.example/agent:1"}},
            "groups": [{"folder": "main", "name": "Main"}],
        }
        platform = settings.pop("platform", "kubernetes")
        merged = {key: value | settings.pop(key, {}) for key, value in common.items() if isinstance(value, dict)}
        config = {"nanoclaw:platform": platform, "nanoclaw:settings": common | merged | settings}
        (self.project / "stacks" / "Pulumi.try.yaml").write_text(yaml.safe_dump({"config": config}))

    def needs(self, **settings) -> Needs:
        self.write(**settings)
        return reader.read("try", self.project, {})

    async def findings(self, client: KubeClient | None = None, **settings) -> list[Finding]:
        return await prerequisites(client or self.admin, self.needs(**settings), lambda _: None)

    async def make(self, resource: Resource, name: str, **content) -> dict:
        if not resource.namespaced:
            self._cluster_wide.append((resource, name))
        manifest = {"metadata": {"name": name} | content.pop("metadata", {})} | content
        group = resource.api.removeprefix("/apis/").removeprefix("/api/")
        manifest |= {"apiVersion": group, "kind": resource.kind}
        return await self.admin.create(resource, manifest, namespace=self.namespace)

    async def storage_class(self, suffix: str, provisioner: str, **more) -> None:
        content = {
            "provisioner": provisioner,
            "reclaimPolicy": "Retain",
            "allowVolumeExpansion": True,
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        await self.make(STORAGE_CLASSES, f"{self.namespace}-{suffix}", **content | more)

    async def pod_security(self, level: str) -> None:
        found = await self.admin.get(NAMESPACES, self.namespace)
        found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = level
        path = NAMESPACES.path("", self.namespace)
        await self.admin.request("PUT", path, Target("update", "namespaces"), body=found)

    async def dns(self) -> dict:
        """Cluster DNS in this namespace, and the settings that say so."""
        await self.make(SERVICES, "dns", spec={"ports": [{"port": 53, "protocol": "UDP"}]})
        await self.make(
            ENDPOINT_SLICES,
            "dns-1",
            metadata={"labels": {"kubernetes.io/service-name": "dns"}},
            addressType="IPv4",
            endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
            ports=[{"port": 53, "protocol": "UDP", "name": ""}],
        )
        return {"dnsNamespace": {"kubernetes.io/metadata.name": self.namespace}}

    async def stranger(self, folder: Path) -> KubeClient:
        """Somebody without a single right."""
        await self.make(ACCOUNTS, "stranger")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = ACCOUNTS.path(self.namespace, "stranger", "token")
        answer = await self.admin.request("POST", path, Target("create", "token"), body=request)
        user = {"token": answer["status"]["token"]}
        return await KubeClient.connect(write_kubeconfig(folder / "stranger", self.kubeconfig, user=user))

    async def remove(self) -> None:
        for resource, name in self._cluster_wide:
            await self.admin.delete(resource, name)


@pytest.fixture
async def place(admin: KubeClient, apiserver: ControlPlane, namespace: str, tmp_path: Path):
    made = Place(admin, apiserver.kubeconfig, namespace, tmp_path / "project")
    await made.storage_class("files", FILES)
    await made.storage_class("block", BLOCK)
    yield made
    await made.remove()


def told(findings: list[Finding], check: str) -> str:
    """Verdict, evidence and remedy of the findings of a check."""
    return "\n".join(f"{f.verdict} {f.evidence} → {f.remedy}" for f in findings if f.check.startswith(check))


async def test_a_cluster_that_has_everything_has_no_failure(place: Place):
    await place.pod_security("restricted")
    findings = await place.findings(network=await place.dns())
    assert [each for each in findings if each.verdict is Verdict.BAD] == []
    assert {each.check for each in findings if each.verdict is Verdict.GOOD} >= {
        *("features", "platform", "clock", "namespace", "rights of `pulumi up`", "DNS", "claims", "quota"),
        *(f"storage class {place.namespace}-files", f"storage class {place.namespace}-block"),
        *("admission: persistentvolumeclaims", "admission: pods"),
    }
    assert "agent of main, controller accepted" in told(findings, "admission: pods")


async def test_nothing_is_made_by_looking(place: Place, admin: KubeClient):
    await place.findings(network=await place.dns())
    assert await admin.list(PODS, namespace=place.namespace) == []
    assert await admin.list(CLAIMS, namespace=place.namespace) == []


async def test_storage_is_judged_by_what_its_driver_can_do(place: Place):
    missing = await place.findings(storage={"storageClass": "nobody"})
    assert "failed missing; there are" in told(missing, "storage class nobody")
    await place.storage_class("small", BLOCK, reclaimPolicy="Delete", allowVolumeExpansion=False)
    check = f"storage class {place.namespace}-small"
    found = told(await place.findings(storage={"storageClass": f"{place.namespace}-small"}), check)
    for words in ("failed ebs.csi.aws.com makes volumes of one node", "warning reclaim policy", "cannot grow"):
        assert words in found


async def test_a_default_class_is_found_where_none_is_named(place: Place):
    nothing = {"storageClass": None, "databaseStorageClass": None}
    assert "failed none is the default" in told(await place.findings(storage=nothing), "storage class")
    chosen = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    await place.storage_class("default", FILES, metadata=chosen)
    findings = await place.findings(storage=nothing)
    assert f"storage class {place.namespace}-default" in {each.check for each in findings}


async def test_without_rights_nothing_is_looked_at_and_nothing_crashes(place: Place, tmp_path: Path):
    async with await place.stranger(tmp_path) as client:
        findings = await place.findings(client)
        assert await absent(client, place.needs()) == "you may not get deployments"
    assert {each.check for each in findings if each.verdict is Verdict.BAD} == {"rights of `pulumi up`"}
    rights = told(findings, "rights")
    assert "get, create, patch, delete serviceaccounts" in rights
    assert "the controller's Role gives rights that you do not have" in rights
    for check, what in (("storage class", "storageclasses"), ("namespace", "namespaces"), ("quota", "resourcequotas")):
        assert f"skipped not looked at: you may not list {what}" in told(findings, check).replace(" get ", " list ")
    assert "you may not create pods" in told(findings, "admission: pods")


async def test_the_api_servers_clock_is_compared_with_this_machines(admin: KubeClient):
    served, now = await asked.served_at(admin), datetime.now(UTC)
    assert served is not None
    assert cluster.clock(served, now).verdict is Verdict.GOOD
    assert "s ahead of this machine's" in cluster.clock(served, now - timedelta(minutes=2)).evidence


async def test_custom_resources_are_found_or_missed(place: Place):
    asked = {"monitoring": {"enabled": True}}
    assert "failed not installed, and monitoring.enabled" in told(await place.findings(**asked), "monitoring.coreos")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        await custom_kind(place, "monitoring.coreos.com", kind)
    while "✗" in (found := told(await place.findings(**asked), "monitoring.coreos").replace("failed", "✗")):
        assert "lacks" in found or "not installed" in found  # until the API server serves them
    assert "ok servicemonitors, prometheusrules in v1" in found


async def custom_kind(place: Place, group: str, kind: str) -> None:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    await place.make(
        CUSTOM,
        f"{plural}.{group}",
        spec={
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    )


async def test_claims_that_are_there_are_not_taken_over_without_a_word(place: Place):
    name = names.group_claim("main")
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": f"{place.namespace}-files",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    await place.make(CLAIMS, name, spec=spec)
    await place.make(CLAIMS, names.STORE_CLAIM, spec=spec)
    found = told(await place.findings(), "claims")
    assert f"warning already there, and taken over with their data: {name} →" in found
    assert f"failed {names.STORE_CLAIM} is already there with ReadWriteMany, not ReadWriteOnce" in found

    adopted = {"adopt": [name, names.STORE_CLAIM, names.GLOBAL_CLAIM]}
    found = told(await place.findings(storage=adopted), "claims")
    assert found == (
        f"failed storage.adopt names {names.GLOBAL_CLAIM}, which is not there → remove it from storage.adopt"
    )


async def test_a_quota_that_is_too_small_is_told_with_what_is_needed(place: Place, admin: KubeClient):
    hard = {"requests.memory": "1Gi", "pods": "50"}
    made = await place.make(QUOTAS, "team", spec={"hard": hard})
    # The quota controller does not run here, so we do its part: without a status nothing is counted.
    made["status"] = {"hard": hard, "used": {"requests.memory": "900Mi", "pods": "0"}}
    path = QUOTAS.path(place.namespace, "team", "status")
    await admin.request("PUT", path, Target("update", "quota"), body=made)
    findings = await place.findings()
    assert "failed team leaves 124Mi of requests.memory, and the stack needs 1472Mi" in told(findings, "quota")
    assert "exceeded quota" in told(findings, "admission: agent of main")


async def test_limits_of_the_namespace_are_found_by_trying(place: Place):
    await place.make(LIMITS, "small", spec={"limits": [{"type": "Container", "max": {"memory": "700Mi"}}]})
    await place.make(LIMITS, "claims", spec={"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]})
    findings = await place.findings()
    assert "maximum memory usage per Container is 700Mi" in told(findings, "admission: agent of main")
    assert told(findings, "admission: controller") == ""
    assert "maximum storage usage per PersistentVolumeClaim is 1Gi" in told(findings, "admission: claim")


async def test_folders_of_nodes_are_refused_where_pod_security_is_restricted(place: Place):
    await place.pod_security("restricted")
    findings = await place.findings(runtime={"pattern": "nodelocal", "agent": {"image": "registry.example/agent:1"}})
    found = told(findings, "admission: controller")
    assert 'violates PodSecurity "restricted:latest": restricted volume types' in found
    assert "pod-security.kubernetes.io/enforce" in found
    assert "enforces Pod Security 'restricted'" in told(findings, "namespace")


async def test_secrets_are_looked_for_and_not_read(place: Place, admin: KubeClient):
    scheduling = {"scheduling": {"imagePullSecrets": ["registry"]}}
    asked = {"credentials": {"existingSecret": "anthropic"}, "controller": scheduling}
    await place.make(SECRETS, "anthropic", stringData={"ANTHROPIC_API_KEY": "not-to-be-seen"})
    findings = await place.findings(**asked)
    assert told(findings, "secret anthropic").startswith("ok there")
    assert told(findings, "secret registry").startswith("failed missing, and controller.scheduling.imagePullSecrets")
    assert "not-to-be-seen" not in str(findings)


async def test_images_are_judged_by_the_pods_that_tried(place: Place, admin: KubeClient):
    assert told(await place.findings(), "image registry.example/agent:1").startswith("skipped")
    spec = {"containers": [{"name": "agent", "image": "registry.example/agent:1"}]}
    made = await place.make(PODS, "agent", metadata={"labels": labels.component(labels.AGENT)}, spec=spec)
    waiting = {"reason": "ErrImagePull", "message": "unauthorized"}
    status = {
        "name": "agent",
        "image": "",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    made["status"] = {"phase": "Pending", "containerStatuses": [status]}
    path = PODS.path(place.namespace, "agent", "status")
    await admin.request("PUT", path, Target("update", "pods"), body=made)
    found = told(await place.findings(), "image registry.example/agent:1")
    assert found.startswith("failed ErrImagePull unauthorized")


async def test_dns_and_policies_are_looked_for_where_the_stack_says(place: Place):
    nowhere = {"dnsNamespace": {"team": "nobody"}}
    assert "failed no namespace has team=nobody" in told(await place.findings(network=nowhere), "DNS")
    here = {"dnsNamespace": {"kubernetes.io/metadata.name": place.namespace}}
    assert "failed there is no Service at port 53" in told(await place.findings(network=here), "DNS")
    assert "nobody who is known" in told(await place.findings(), "network policies")
    match = {"k8s-app": "calico"}
    template = {"metadata": {"labels": match}, "spec": {"containers": [{"name": "node", "image": "x"}]}}
    await place.make(DAEMON_SETS, "calico-node", spec={"selector": {"matchLabels": match}, "template": template})
    findings = await place.findings(network=await place.dns())
    assert told(findings, "network policies").startswith("ok Calico")
    assert told(findings, "DNS").startswith("ok 1 addresses")


async def test_without_a_namespace_its_inside_is_skipped(place: Place):
    missing = await place.findings(namespace={"name": "nobody", "create": False})
    assert told(missing, "namespace").startswith("failed there is no namespace 'nobody'")
    assert "there is no namespace yet" in told(missing, "admission: pods")
    made = await place.findings(namespace={"name": "nobody", "create": True})
    assert told(made, "namespace").startswith("ok nobody; `pulumi up` makes it")


async def test_the_platform_is_compared_with_what_the_cluster_serves(place: Place):
    found = told(await place.findings(platform="openshift"), "platform")
    assert "the stack's platform is openshift and the cluster is not" in found


async def test_rights_in_one_namespace_are_enough_where_the_stack_makes_nothing_else(
    place: Place, admin: KubeClient, tmp_path: Path
):
    """The ClusterRole `admin` and what it lacks for us."""
    async with await place.stranger(tmp_path) as client:
        binding = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "stranger", "namespace": place.namespace}],
        }
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        await place.make(Resource("RoleBinding", "rolebindings", rbac), "stranger", **binding)
        own = await place.findings(client)
        assert told(own, "rights").startswith("ok all")
        wide = await place.findings(client, priorities={"enabled": True})
        assert told(wide, "rights") == (
            "failed you may not get, create, patch, delete priorityclasses.scheduling.k8s.io → ask for these rights"
        )


# The command


async def test_the_command_reports_and_fails_when_something_does(place: Place):
    line = CommandLine(KUBECONFIG="/nowhere", NANOCLAW_NAMESPACE="elsewhere")
    place.write(network=await place.dns())
    doctor = ("doctor", "--stack", "try", "--project", place.project)
    status, out, err = await line.run(*doctor, "-o", "json")
    assert (status, err) == (0, "")
    findings = [Finding.model_validate(each) for each in yaml.safe_load(out)]
    assert findings[0].check == "API server"
    assert findings[-1] == Finding(
        check="installation",
        verdict=Verdict.SKIPPED,
        evidence="not looked at: there is no controller yet; `pulumi up` makes it",
    )
    place.write(storage={"storageClass": "nobody"})
    status, out, _ = await line.run(*doctor)
    assert status == 1
    assert "storage class nobody" in out


async def test_a_stack_that_is_wrong_or_unknown_is_told_in_its_own_sentences(place: Place):
    line = CommandLine()
    place.write(runtime={"maxConcurrentSessions": 0})
    status, out, err = await line.run("doctor", "--stack", "try", "--project", place.project)
    assert (status, out) == (1, "")
    assert "nanoclaw: stack 'try' has one problem:\n  - nanoclaw:settings.runtime.maxConcurrentSessions is 0" in err
    status, _, err = await line.run("doctor", "--stack", "none", "--project", place.project)
    assert status == 1
    assert "there are the stacks try" in err


async def test_a_cluster_that_cannot_be_reached_is_the_only_finding(
    place: Place, apiserver: ControlPlane, tmp_path: Path, nowhere: str
):
    place.kubeconfig = write_kubeconfig(tmp_path / "nowhere", apiserver.kubeconfig, server=nowhere)
    place.write()
    found = await CommandLine().run("doctor", "--stack", "try", "--project", place.project, "-o", "json")
    assert found[0] == 1
    assert [each["check"] for each in yaml.safe_load(found[1])] == ["API server"]


async def test_once_it_is_installed_the_installation_is_looked_at_too(place: Place):
    match = labels.component(labels.CONTROLLER)
    template = {"metadata": {"labels": match}, "spec": {"containers": [{"name": "controller", "image": "x"}]}}
    deployments = Resource("Deployment", "deployments", "/apis/apps/v1")
    spec = {"selector": {"matchLabels": match}, "template": template}
    await place.make(deployments, names.CONTROLLER, metadata={"labels": match}, spec=spec)
    place.write()
    line = ("doctor", "--stack", "try", "--project", place.project, "-o", "json")
    status, out, _ = await CommandLine().run(*line)
    checks = [each["check"] for each in yaml.safe_load(out)]
    assert status == 1
    assert checks.index("admission: pods") < checks.index("controller") < checks.index("service")


async def test_no_claim_of_a_stack_without_claims_is_looked_for(place: Place):
    needs = dataclasses.replace(place.needs(), claims=())
    findings = await prerequisites(place.admin, needs, lambda _: None)
    assert told(findings, "admission: persistentvolumeclaims").startswith("ok all are there")
    assert told(findings, "storage class") == ""
