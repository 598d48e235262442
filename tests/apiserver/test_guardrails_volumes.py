"""The admission rules for what agents mount: of each layout and of nodes' disks, the folders of their own group."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.kube.errors import Forbidden
from tests.support.agent_pods import NODE_ROOT, Pod, agent, bridged, claim, folder, on_node, volume
from tests.support.guarded import Guarded
from tests.support.plans import plan

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("cut", ["per-group"])
async def test_one_claim_a_group_is_that_groups_alone(guarded: Guarded) -> None:
    pod = agent(plan("team", "s1", layout=Layout.PER_GROUP))
    volume("nanoclaw-folder-other", "group", **claim("nanoclaw-folder-other"))(pod)
    with pytest.raises(Forbidden, match="claims of their own group"):
        await guarded.make_pod(pod)


@pytest.mark.parametrize("cut", ["bridge-per-group"])
async def test_an_agent_does_not_see_its_claim_whole_as_the_bridge_does(guarded: Guarded) -> None:
    pod = agent(bridged(plan("team", "s1", layout=Layout.PER_GROUP)))
    volume("nanoclaw-folder-team")(pod)
    with pytest.raises(Forbidden, match="folders of their own group"):
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


@pytest.mark.parametrize("cut", ["node-folders"])
async def test_a_folder_of_the_node_below_an_allowed_root_is_let_through(guarded: Guarded) -> None:
    extra = (ExtraMount("/workspace/extra/docs", host_path="/srv/docs/2026"),)
    await guarded.make_pod(agent(plan("team", "s1", extra=extra)))


@pytest.mark.parametrize("cut", ["node-folders"])
@pytest.mark.parametrize("path", ["/", "/srv", "/srv/docs-of-others", "/var/lib/nanoclaw/groups/team"])
async def test_a_folder_of_the_node_outside_the_allowed_roots_is_refused(guarded: Guarded, path: str) -> None:
    extra = (ExtraMount("/workspace/extra/docs", host_path=path),)
    with pytest.raises(Forbidden, match=r"mountAllowlist\.allowedRoots"):
        await guarded.make_pod(agent(plan("team", "s1", extra=extra)))
