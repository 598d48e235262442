"""Groups that are added at run time, on a real API server: their claims, and whose fields of a Deployment are whose."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.contract.claims import Layout, Purpose, group_claims
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, RegistrationStorage
from nanoclaw_runtime.contract.permissions import Rule, controller_rules
from nanoclaw_runtime.domain.errors import RegistrationRefused
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Forbidden, Target
from nanoclaw_runtime.kube.registration import ClaimVolumes
from nanoclaw_runtime.kube.resources import CLAIMS, DEPLOYMENTS
from nanoclaw_runtime.manifests.registration import group_claim

pytestmark = pytest.mark.apiserver

GOLDEN = Path(__file__).parents[1] / "infra" / "golden" / "local.yaml"
STORAGE = RegistrationStorage(
    storage_class="fast",
    access_modes=dict.fromkeys((Purpose.GROUP, Purpose.IPC, Purpose.SESSIONS), "ReadWriteMany"),
    sizes={Purpose.GROUP: "64Mi", Purpose.IPC: "16Mi", Purpose.SESSIONS: "64Mi"},
)
STACK = "pulumi-kubernetes-0a1b2c3d"
# As the stack's field manager is called.


@pytest.fixture
def contract_rules() -> tuple[Rule, ...]:
    return controller_rules(ControllerConfig(agent=AgentSettings(image="agent:1"), registration=True))


@pytest.fixture
def volumes(controller: KubeClient, namespace: str, tmp_path: Path) -> ClaimVolumes:
    return ClaimVolumes(controller, namespace, Layout.PER_TYPE, STORAGE, tmp_path)


class Stack:
    """The controller's Deployment as the stack applies it."""

    def __init__(self, admin: KubeClient, namespace: str) -> None:
        self.admin = admin
        documents = yaml.safe_load_all(GOLDEN.read_text())
        self.declared = next(each for each in documents if each["kind"] == "Deployment")
        self.declared["metadata"]["namespace"] = self.namespace = namespace

    @property
    def pod(self) -> dict:
        return self.declared["spec"]["template"]["spec"]

    async def up(self) -> dict:
        return await self.admin.apply(
            DEPLOYMENTS, copy.deepcopy(self.declared), manager=STACK, namespace=self.namespace
        )

    async def deployment(self) -> dict:
        return await self.admin.get(DEPLOYMENTS, names.CONTROLLER, namespace=self.namespace)

    async def mounts(self) -> dict[str, str]:
        """Claims in the controller's pod and where they are, beyond those the stack declared first."""
        pod = (await self.deployment())["spec"]["template"]["spec"]
        known = {volume["name"] for volume in Stack(self.admin, self.namespace).pod["volumes"]}
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["volumes"]
            if volume["name"] not in known
        }
        (container,) = pod["containers"]
        mounted = {
            mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] not in known
        }
        assert claims.keys() == mounted.keys()
        return {claims[name]: path for name, path in mounted.items()}


@pytest.fixture
async def stack(admin: KubeClient, namespace: str) -> Stack:
    stack = Stack(admin, namespace)
    await stack.up()
    return stack


def expected(*folders: str) -> dict[str, str]:
    return {
        claim: path
        for folder in folders
        for claim, path in (
            (names.group_claim(folder), f"{layout.TREE}/{layout.group_dir(folder)}"),
            (names.ipc_claim(folder), f"{layout.TREE}/{layout.ipc_dir(folder)}"),
            (names.sessions_claim(folder), f"{layout.TREE}/{layout.sessions_dir(folder)}"),
        )
    }


async def test_a_controller_whose_files_are_carried_gives_up_what_it_mounted(
    controller: KubeClient, admin: KubeClient, namespace: str, volumes: ClaimVolumes, tmp_path: Path
) -> None:
    stack = Stack(admin, namespace)
    await stack.up()
    await volumes.mount(["team"])
    assert await stack.mounts()
    carried = ClaimVolumes(controller, namespace, Layout.PER_TYPE, STORAGE, tmp_path, carried=True)
    await carried.mount(["team"])
    assert await stack.mounts() == {}
    assert await carried.mounted("team")


async def test_a_groups_claims_are_made_once(admin: KubeClient, volumes: ClaimVolumes, namespace: str) -> None:
    await volumes.provide("Team_42")
    made = await admin.list(CLAIMS, namespace=namespace)
    await volumes.provide("Team_42")

    assert {claim["metadata"]["name"] for claim in made} == {
        claim.name for claim in group_claims(Layout.PER_TYPE, "Team_42")
    }
    assert all(claim["spec"]["storageClassName"] == "fast" for claim in made)
    again = await admin.list(CLAIMS, namespace=namespace)
    assert [claim["metadata"]["uid"] for claim in again] == [claim["metadata"]["uid"] for claim in made]


async def test_a_claim_of_somebody_else_is_not_taken(admin: KubeClient, volumes: ClaimVolumes, namespace: str) -> None:
    theirs = group_claim(group_claims(Layout.PER_TYPE, "team")[1], STORAGE)
    theirs["metadata"]["labels"] = {}
    await admin.create(CLAIMS, theirs, namespace=namespace)

    with pytest.raises(RegistrationRefused, match=rf"{names.ipc_claim('team')}.*not one of group 'team'"):
        await volumes.provide("team")


async def test_the_stack_and_the_controller_leave_each_other_alone(stack: Stack, volumes: ClaimVolumes) -> None:
    declared = (await stack.deployment())["spec"]["template"]
    await volumes.mount(["team", "Club_1"])
    assert await stack.mounts() == expected("team", "Club_1")

    stack.pod["containers"][0]["image"] = "localhost/nanoclaw-runtime:next"
    await stack.up()
    deployment = await stack.deployment()
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/nanoclaw-runtime:next"
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert await stack.mounts() == expected("team", "Club_1")

    await volumes.mount(["team"])
    assert await stack.mounts() == expected("team")

    await volumes.mount([])
    left = (await stack.deployment())["spec"]["template"]
    left["spec"]["containers"][0]["image"] = declared["spec"]["containers"][0]["image"]
    assert left == declared


async def test_mounting_what_is_mounted_replaces_no_pod(stack: Stack, volumes: ClaimVolumes) -> None:
    await volumes.mount(["team"])
    before = (await stack.deployment())["metadata"]["generation"]
    await volumes.mount(["team"])

    assert (await stack.deployment())["metadata"]["generation"] == before


async def test_a_group_the_stack_declares_later_stays_when_ours_goes(stack: Stack, volumes: ClaimVolumes) -> None:
    await volumes.mount(["team"])
    for claim, path in expected("team").items():
        stack.pod["volumes"].append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        stack.pod["containers"][0]["volumeMounts"].append({"name": claim, "mountPath": path})
    before = (await stack.deployment())["metadata"]["generation"]
    await stack.up()
    await volumes.mount([])

    assert await stack.mounts() == expected("team")
    assert (await stack.deployment())["metadata"]["generation"] == before


async def test_a_group_is_mounted_when_all_its_folders_are_there(volumes: ClaimVolumes, tmp_path: Path) -> None:
    for directory in (layout.group_dir("team"), layout.ipc_dir("team")):
        (tmp_path / directory).mkdir(parents=True)
    assert not await volumes.mounted("team")

    (tmp_path / layout.sessions_dir("team")).mkdir(parents=True)
    assert await volumes.mounted("team")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("DELETE", CLAIMS.path("{}", "x"), id="delete a claim"),
        pytest.param("PUT", DEPLOYMENTS.path("{}", names.CONTROLLER), id="replace its Deployment"),
        pytest.param("DELETE", DEPLOYMENTS.path("{}", names.CONTROLLER), id="delete its Deployment"),
        pytest.param("POST", DEPLOYMENTS.path("{}"), id="make another Deployment"),
        pytest.param("GET", DEPLOYMENTS.path("{}"), id="list Deployments"),
        pytest.param("GET", "/api/v1/namespaces/{}/secrets", id="list secrets"),
    ],
)
async def test_registration_allows_nothing_else(controller: KubeClient, namespace: str, method: str, path: str) -> None:
    with pytest.raises(Forbidden):
        await controller.request(method, path.format(namespace), Target("try", "this"))


async def test_another_deployment_cannot_be_changed(controller: KubeClient) -> None:
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}}
    with pytest.raises(Forbidden):
        await controller.apply(DEPLOYMENTS, other, manager="anybody")
