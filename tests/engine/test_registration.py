"""A group that is added at run time, and the stack that goes on without knowing of it: the real engine and API."""

from __future__ import annotations

import asyncio

import pytest

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.registration import ClaimVolumes

pytestmark = pytest.mark.engine

STORAGE = {"storageClass": "fast"}


class Added:
    """The controller's part, which is not running here: groups that were added to one installation."""

    def __init__(self, control_plane, namespace):
        self.api, self.kubeconfig, self.namespace = control_plane.api, control_plane.kubeconfig, namespace

    def mount(self, *folders):
        asyncio.run(self._mount(folders))

    async def _mount(self, folders):
        (settings,) = (
            each["data"][names.SETTINGS_KEY]
            for each in self.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps")["items"]
            if names.SETTINGS_KEY in each["data"]
        )
        storage = ControllerConfig.model_validate_json(settings).registration_storage
        async with await KubeClient.connect(self.kubeconfig) as client:
            volumes = ClaimVolumes(client, self.namespace, Layout.PER_TYPE, storage, tree=None)
            for folder in folders:
                await volumes.provide(folder)
            await volumes.mount(folders)

    def pod(self):
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{names.CONTROLLER}"
        return self.api.get(path)["spec"]["template"]["spec"]

    def mounted(self, folder):
        volumes = {volume["name"] for volume in self.pod()["volumes"]}
        mounts = {mount["name"] for mount in self.pod()["containers"][0]["volumeMounts"]}
        claims = {names.group_claim(folder), names.ipc_claim(folder), names.sessions_claim(folder)}
        assert (claims <= volumes) is (claims <= mounts)
        return claims <= mounts


def write(project, *groups, image="localhost/controller:1"):
    runtime = {"agent": {"image": "localhost/agent:1"}, "registration": True}
    project.write(groups=groups, storage=STORAGE, runtime=runtime, controller={"image": image})


def test_the_stack_leaves_an_added_group_alone_and_takes_it_over_when_it_is_declared(project, control_plane):
    write(project, "main")
    project.up()
    added = Added(control_plane, project.namespace)
    added.mount("team")
    assert project.preview() == set(), "what was added is none of the stack's business"
    assert not project.engine.has_drift(project.stack)

    write(project, "main", image="localhost/controller:2")
    assert project.up() == {("update", "Deployment", names.CONTROLLER)}
    assert added.pod()["containers"][0]["image"] == "localhost/controller:2"
    assert added.mounted("team")

    write(project, "main", "team", image="localhost/controller:2")
    project.up()
    added.mount()
    assert added.mounted("team"), "it is the stack's now"
    assert project.preview() == set()
