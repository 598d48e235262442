"""Additional mounts: NanoClaw's rules for a host's folders, and what a cluster adds to them."""

import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as some

from nanoclaw_runtime.contract.config import (
    AdditionalMount,
    AgentSettings,
    AllowedRoot,
    ControllerConfig,
    GroupSpec,
    MountAllowlist,
    Pattern,
)
from nanoclaw_runtime.contract.mounts import ALWAYS_BLOCKED, ExtraMount, as_written, judge
from nanoclaw_runtime.controller.mounts import permitted_mounts
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.domain.mounts import load_allowlist
from nanoclaw_runtime.ipc.folders import real_path

HOST = {
    "~/projects": "/home/me/projects",
    "~/projects/site": "/home/me/projects/site",
    "/srv/docs": "/srv/docs",
    "/srv/docs/a": "/srv/docs/a",
    "/srv/docs-private": "/srv/docs-private",
    "/srv/link-out": "/etc",
    "/srv/docs/link-in": "/srv/docs/a",
    "/srv/link-to-docs": "/srv/docs",
    "/srv/docs/with:colon": "/srv/docs/with:colon",
    "/srv/docs/plain": "/srv/docs/.ssh/keys",
}
"""A small host: written path → real path."""

ALLOWLIST = MountAllowlist.model_validate(
    {
        "allowedRoots": [
            {"path": "/nowhere"},
            {"path": "~/projects", "allowReadWrite": True},
            {"path": "/srv/docs", "allowReadWrite": False},
        ],
        "blockedPatterns": ["salary"],
        "nonMainReadOnly": True,
        "claims": [{"name": "library"}, {"name": "drafts", "allowReadWrite": True}],
        "configMaps": [{"name": "prompts"}],
    }
)


def group(*mounts: dict, folder: str = "family") -> GroupSpec:
    return GroupSpec.model_validate(
        {"folder": folder, "name": folder, "containerConfig": {"additionalMounts": list(mounts)}}
    )


def on_host(*mounts: dict, folder: str = "family", allowlist: MountAllowlist | None = ALLOWLIST, **changes):
    changed = allowlist and allowlist.model_copy(update=changes)
    return judge(group(*mounts, folder=folder), changed, pattern=Pattern.DOCKER, resolve=HOST.get)


def on_cluster(*mounts: dict, folder: str = "family", **changes):
    allowlist = ALLOWLIST.model_copy(update=changes)
    return judge(group(*mounts, folder=folder), allowlist, pattern=Pattern.JOB, resolve=HOST.get)


def reason(judgement) -> str:
    [refused] = judgement.refused
    assert not judgement.accepted
    return refused.reason


def test_without_an_allowlist_nothing_is_mounted():
    assert "there is no mount allowlist" in reason(on_host({"hostPath": "/srv/docs"}, allowlist=None))


@pytest.mark.parametrize(
    ("mount", "path", "real"),
    [
        pytest.param({"hostPath": "/srv/docs"}, "docs", "/srv/docs", id="the root itself, named as it is"),
        pytest.param({"hostPath": "/srv/docs/a", "containerPath": "x/y"}, "x/y", "/srv/docs/a", id="a path inside"),
        pytest.param({"hostPath": "~/projects/site"}, "site", "/home/me/projects/site", id="below the home"),
        pytest.param({"hostPath": "/srv/docs/link-in"}, "link-in", "/srv/docs/a", id="a link that stays inside"),
        pytest.param({"hostPath": "/srv/link-to-docs"}, "link-to-docs", "/srv/docs", id="a link into a root"),
        pytest.param({"hostPath": "/srv/docs", "containerPath": "a//./b/"}, "a/b", "/srv/docs", id="tidied"),
    ],
)
def test_a_folder_below_an_allowed_root_is_mounted_read_only(mount, path, real):
    assert on_host(mount).accepted == (ExtraMount(f"/workspace/extra/{path}", host_path=real),)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/srv/missing", "does not exist", id="missing"),
        pytest.param("/srv/link-out", "'/etc' is below no allowed root", id="a link that leads out"),
        pytest.param("/srv/docs-private", "below no allowed root", id="a neighbour whose name begins alike"),
        pytest.param("/srv/docs/plain", "contains '.ssh'", id="a link to something blocked"),
        pytest.param("/srv/docs/with:colon", "has a ':'", id="colon"),
    ],
)
def test_a_folder_elsewhere_is_refused(path, said):
    assert said in reason(on_host({"hostPath": path}))


@pytest.mark.parametrize("word", [*ALWAYS_BLOCKED, "salary"])
@pytest.mark.parametrize("shape", ["/srv/docs/{}", "/srv/docs/my{}s/deep"])
def test_blocked_words_are_refused_wherever_they_are_part_of_a_path(word, shape):
    real = shape.format(word)
    judged = judge(group({"hostPath": "/x"}), ALLOWLIST, pattern=Pattern.DOCKER, resolve=(HOST | {"/x": real}).get)
    assert f"contains {word!r}" in reason(judged)


@pytest.mark.parametrize(
    ("container_path", "said"),
    [
        pytest.param("  ", "blank", id="blank"),
        pytest.param("/etc", "absolute", id="absolute"),
        pytest.param("..", "contains '..'", id="parent"),
        pytest.param("a/../../b", "contains '..'", id="parent inside"),
        pytest.param("a..b", "contains '..'", id="two dots, as NanoClaw has it"),
        pytest.param("a:rw", "':'", id="mount option"),
        pytest.param("a\0b", "control character", id="NUL"),
        pytest.param("a\nb", "control character", id="line"),
        pytest.param("./.", "itself", id="the folder of all"),
    ],
)
def test_a_place_in_the_container_is_relative_and_plain(container_path, said):
    assert said in reason(on_host({"hostPath": "/srv/docs", "containerPath": container_path}))


def test_the_root_of_the_host_has_no_name_to_mount_it_under():
    everything = MountAllowlist.model_validate({"allowedRoots": [{"path": "/"}]})
    judged = judge(group({"hostPath": "/"}), everything, pattern=Pattern.DOCKER, resolve={"/": "/"}.get)
    assert "blank" in reason(judged)


@pytest.mark.parametrize("folder", ["main", "family"])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("root_allows", [True, False])
@pytest.mark.parametrize("others_read_only", [True, False])
def test_writing_needs_the_wish_the_root_and_the_role(folder, asked, root_allows, others_read_only):
    path = "~/projects" if root_allows else "/srv/docs"
    judged = on_host({"hostPath": path, "readonly": not asked}, folder=folder, non_main_read_only=others_read_only)
    [mount] = judged.accepted
    assert mount.read_only is not (asked and root_allows and (folder == "main" or not others_read_only))


def test_the_first_root_that_holds_a_folder_decides():
    nested = MountAllowlist.model_validate(
        {"allowedRoots": [{"path": "/srv/docs"}, {"path": "/srv/docs/a", "allowReadWrite": True}]}
    )
    mounts = group({"hostPath": "/srv/docs/a", "readonly": False}, folder="main")
    [mount] = judge(mounts, nested, pattern=Pattern.DOCKER, resolve=HOST.get).accepted
    assert mount.read_only


@pytest.mark.parametrize(
    ("first", "second"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a/./b/")], ids=["same", "in", "on", "tidied"]
)
def test_of_two_mounts_in_one_place_the_first_is_kept(first, second):
    judged = on_host(
        {"hostPath": "/srv/docs", "containerPath": first}, {"hostPath": "~/projects", "containerPath": second}
    )
    assert [mount.host_path for mount in judged.accepted] == ["/srv/docs"]
    assert [refused.position for refused in judged.refused] == [1]


def test_a_refused_mount_takes_no_other_along():
    judged = on_host({"hostPath": "/srv/missing"}, {"hostPath": "/srv/docs"}, {"hostPath": "/srv/link-out"})
    assert [mount.host_path for mount in judged.accepted] == ["/srv/docs"]
    assert [refused.position for refused in judged.refused] == [0, 2]


def test_names_that_only_begin_alike_are_two_places():
    judged = on_host(
        {"hostPath": "/srv/docs", "containerPath": "a"}, {"hostPath": "~/projects", "containerPath": "a-b"}
    )
    assert len(judged.accepted) == 2


@pytest.mark.parametrize("source", [{"claim": "library"}, {"configMap": "prompts"}])
def test_a_docker_host_has_no_claims(source):
    assert "on a Docker host write a hostPath" in reason(on_host(source))


@pytest.mark.parametrize(
    ("mount", "made"),
    [
        pytest.param({"claim": "library"}, ExtraMount("/workspace/extra/library", claim="library"), id="claim"),
        pytest.param(
            {"claim": "drafts", "subPath": "2026//may/", "containerPath": "may"},
            ExtraMount("/workspace/extra/may", claim="drafts", sub_path="2026/may"),
            id="a folder of a claim",
        ),
        pytest.param(
            {"claim": "drafts", "subPath": "."}, ExtraMount("/workspace/extra/drafts", claim="drafts"), id="all of it"
        ),
        pytest.param(
            {"configMap": "prompts", "readonly": False},
            ExtraMount("/workspace/extra/prompts", config_map="prompts"),
            id="ConfigMap, read-only whatever was asked",
        ),
    ],
)
def test_allowed_claims_and_config_maps_are_mounted(mount, made):
    assert on_cluster(mount, folder="main").accepted == (made,)


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        pytest.param({"claim": "payroll"}, "the claim 'payroll' is not allowed", id="unknown claim"),
        pytest.param({"claim": "prompts"}, "the claim 'prompts' is not allowed", id="a ConfigMap's name"),
        pytest.param({"configMap": "library"}, "the ConfigMap 'library' is not allowed", id="a claim's name"),
        pytest.param({"claim": "nanoclaw-data"}, "not allowed", id="the installation's own claim"),
        pytest.param({"claim": "library", "subPath": "../x"}, "leaves the claim", id="up"),
        pytest.param({"claim": "library", "subPath": "a/../../x"}, "leaves the claim", id="up inside"),
        pytest.param({"claim": "library", "subPath": "/x"}, "leaves the claim", id="absolute"),
        pytest.param({"claim": "library", "subPath": "x/.ssh"}, "contains '.ssh'", id="blocked"),
        pytest.param({"claim": "library", "subPath": "a\0"}, "control character", id="NUL"),
    ],
)
def test_what_the_stack_does_not_name_is_refused(mount, said):
    assert said in reason(on_cluster(mount))


@pytest.mark.parametrize(
    ("folder", "asked", "claim", "read_only"),
    [
        ("main", True, "drafts", False),
        ("main", True, "library", True),
        ("main", False, "drafts", True),
        ("family", True, "drafts", True),
    ],
)
def test_a_claim_is_written_by_the_rules_of_folders(folder, asked, claim, read_only):
    [mount] = on_cluster({"claim": claim, "readonly": not asked}, folder=folder).accepted
    assert mount.read_only is read_only


def test_a_node_s_folders_are_refused_unless_the_stack_says_otherwise():
    assert "set mountAllowlist.hostPathsOnNodes" in reason(on_cluster({"hostPath": "/srv/docs"}))
    permitted = on_cluster({"hostPath": "/srv/docs//a/"}, host_paths_on_nodes=True)
    assert permitted.accepted == (ExtraMount("/workspace/extra/a", host_path="/srv/docs/a"),)


@pytest.mark.parametrize("path", ["~/projects", "srv/docs", "/srv/docs/../../etc", "/srv/docs/.."])
def test_a_node_s_path_is_taken_only_as_it_is_written(path):
    mount = {"hostPath": path, "containerPath": "x"}
    assert "absolute path without '..'" in reason(on_cluster(mount, host_paths_on_nodes=True))


@pytest.mark.parametrize("path", ["/srv/docs-private", "/srv", "/etc", "/srv/docs/.ssh"])
def test_a_node_s_path_is_judged_by_roots_and_words(path):
    assert reason(on_cluster({"hostPath": path}, host_paths_on_nodes=True))


@given(
    path=some.text(some.sampled_from("ab/.~: \0"), min_size=1, max_size=20),
    container_path=some.text(some.sampled_from("ab/.: \0"), max_size=20),
)
def test_whatever_is_written_stays_below_its_root_and_its_place(path, container_path):
    allowlist = MountAllowlist.model_validate({"allowedRoots": [{"path": "/a"}], "hostPathsOnNodes": True})
    mounts = group({"hostPath": path, "containerPath": container_path})
    for mount in judge(mounts, allowlist, pattern=Pattern.JOB, resolve=as_written).accepted:
        assert f"{mount.host_path}/".startswith("/a/")
        assert mount.path.startswith("/workspace/extra/")
        assert not {"..", ".", ""} & set(f"{mount.path}{mount.host_path}"[1:].split("/"))


def test_links_of_a_real_host_are_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "docs").mkdir()
    (tmp_path / "alias").symlink_to("docs")
    assert real_path("~/alias") == real_path(f"{tmp_path}/docs/../alias") == str((tmp_path / "docs").resolve())
    assert real_path("~/nothing") is None
    assert real_path("a\0b") is None


def test_a_loop_of_links_is_nothing(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert real_path(str(tmp_path / "loop")) is None


NANOCLAWS_FILE = {
    "allowedRoots": [{"path": "~/projects", "allowReadWrite": True, "description": "work"}, {"path": "/srv/docs"}],
    "blockedPatterns": ["salary"],
    "nonMainReadOnly": False,
}


def test_nanoclaws_allowlist_file_is_taken_as_it_is():
    allowlist = load_allowlist(json.dumps(NANOCLAWS_FILE | {"comment": "mine"}))
    assert [(root.path, root.allow_read_write) for root in allowlist.allowed_roots] == [
        ("~/projects", True),
        ("/srv/docs", False),
    ]
    assert (allowlist.blocked_patterns, allowlist.non_main_read_only) == (("salary",), False)


def test_nanoclaws_allowlist_file_opens_nothing_a_cluster_has():
    more = NANOCLAWS_FILE | {"claims": [{"name": "library"}], "hostPathsOnNodes": True}
    allowlist = load_allowlist(json.dumps(more))
    assert (allowlist.claims, allowlist.host_paths_on_nodes) == ((), False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "no JSON", id="no JSON"),
        pytest.param("[" * 100_000, "no JSON", id="deep"),
        pytest.param("[]", "no JSON object", id="a list"),
        *(
            pytest.param(json.dumps({**NANOCLAWS_FILE, key: None}), f"needs {key}", id=f"{key} is null")
            for key in NANOCLAWS_FILE
        ),
        *(
            pytest.param(
                json.dumps({name: NANOCLAWS_FILE[name] for name in NANOCLAWS_FILE if name != key}),
                f"needs {key}",
                id=f"no {key}",
            )
            for key in NANOCLAWS_FILE
        ),
        pytest.param(json.dumps(NANOCLAWS_FILE | {"nonMainReadOnly": 1}), "true or false", id="a number"),
        pytest.param(json.dumps(NANOCLAWS_FILE | {"allowedRoots": ["/srv"]}), "allowedRoots.0", id="a bare root"),
        pytest.param(
            json.dumps(NANOCLAWS_FILE | {"allowedRoots": [{"path": "/srv", "allowReadWrite": "no"}]}),
            "allowedRoots.0.allowReadWrite",
            id="a word for a truth",
        ),
        pytest.param(json.dumps(NANOCLAWS_FILE | {"blockedPatterns": [""]}), "blockedPatterns.0", id="empty word"),
    ],
)
def test_a_wrong_allowlist_file_is_told_and_opens_nothing(text, said):
    with pytest.raises(SettingsInvalid, match=said):
        load_allowlist(text)


def test_a_mount_has_one_source():
    with pytest.raises(ValueError, match="it has hostPath and claim"):
        AdditionalMount(host_path="/a", claim="b")
    with pytest.raises(ValueError, match="it has none"):
        AdditionalMount()
    with pytest.raises(ValueError, match="only a claim has a subPath"):
        AdditionalMount(host_path="/a", sub_path="b")


@pytest.mark.parametrize(
    ("allowlist", "said"),
    [
        ({"claims": [{"name": "nanoclaw-data"}]}, "the installation's own objects"),
        ({"configMaps": [{"name": "nanoclaw-groups"}]}, "the installation's own objects"),
        ({"configMaps": [{"name": "prompts", "allowReadWrite": True}]}, "always read-only"),
    ],
)
def test_an_allowlist_cannot_open_what_must_stay_closed(allowlist, said):
    with pytest.raises(ValueError, match=said):
        MountAllowlist.model_validate(allowlist)


@pytest.mark.parametrize("path", ["srv/nanoclaw", "srv/nanoclaw/data/ipc/other", "srv", "link"])
def test_the_installation_itself_is_not_mounted(tmp_path, path):
    (tmp_path / "srv/nanoclaw/data/ipc/other").mkdir(parents=True)
    (tmp_path / "srv/nanoclaw-docs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "srv/nanoclaw/data")
    allowlist = MountAllowlist(allowed_roots=(AllowedRoot(path=str(tmp_path)),))
    judgement = judge(
        group({"hostPath": f"{tmp_path}/{path}"}, {"hostPath": f"{tmp_path}/srv/nanoclaw-docs"}, folder="main"),
        allowlist,
        pattern=Pattern.DOCKER,
        resolve=real_path,
        tree=str(tmp_path.resolve() / "srv/nanoclaw"),
    )
    assert [mount.path for mount in judgement.accepted] == ["/workspace/extra/nanoclaw-docs"]
    assert "other groups' folders" in judgement.refused[0].reason


def test_an_agent_starts_without_the_mounts_it_may_not_have_and_the_log_says_why(tmp_path):
    (tmp_path / "docs").mkdir()
    config = ControllerConfig(
        pattern=Pattern.DOCKER,
        agent=AgentSettings(image="localhost/agent:1"),
        mount_allowlist=MountAllowlist(allowed_roots=(AllowedRoot(path=str(tmp_path)),)),
    )
    mounts = group({"hostPath": str(tmp_path / "nothing")}, {"hostPath": f"{tmp_path}/docs"})
    with structlog.testing.capture_logs() as logs:
        [mount] = permitted_mounts(config, tmp_path / "tree")(mounts)
    assert mount.host_path == str((tmp_path / "docs").resolve())
    [warning] = logs
    assert (warning["event"], warning["group"], warning["position"]) == ("mount.refused", "family", 0)
    assert "does not exist" in warning["reason"]
