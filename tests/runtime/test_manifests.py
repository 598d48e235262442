"""The Job or StatefulSet of a session, as golden YAML for every shape it can take, and the rules behind it.

`NANOCLAW_GOLDEN=write pytest tests/runtime/test_manifests.py` writes the files anew; the
difference is then reviewed. That the API server takes them is shown in tests/apiserver.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern, Platform
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.domain.parking import LONGEST_WAIT
from nanoclaw_runtime.manifests.identity import fingerprint
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.statefulset import agent_set
from tests.support.plans import SHAPES, holder, plan

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("shape", SHAPES)
def test_what_holds_a_session_is_what_its_golden_file_shows(shape: str) -> None:
    text = yaml.safe_dump(holder(SHAPES[shape]), sort_keys=False, width=120)
    golden = GOLDEN / f"{shape}.yaml"
    if os.environ.get("NANOCLAW_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "run NANOCLAW_GOLDEN=write pytest tests/runtime/test_manifests.py, and review"


def test_every_golden_file_has_its_shape() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(SHAPES)


def pod_spec(**settings) -> dict:
    return agent_job(plan(settings.pop("folder", "team"), "s1", **settings))["spec"]["template"]["spec"]


def test_openshift_chooses_the_user() -> None:
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod_spec(platform=Platform.OPENSHIFT)["securityContext"])


def test_the_home_folder_is_ours_even_when_the_stack_says_otherwise() -> None:
    [container] = pod_spec(env={"HOME": "/", "LOG_LEVEL": "debug"})["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert (environment["HOME"], environment["LOG_LEVEL"]) == ("/home/node", "debug")


def test_no_volume_is_mounted_before_the_folder_it_lies_in() -> None:
    [container] = pod_spec()["containers"]
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert paths.index("/home/node") < paths.index("/home/node/.claude")


folders = some.from_regex(names.FOLDER_PATTERN, fullmatch=True).filter(lambda folder: not names.folder_problem(folder))


@given(folder=folders, arrangement=some.sampled_from(Layout), kind=some.sampled_from(SessionKind))
def test_every_mount_has_its_volume_and_every_volume_its_mount(
    folder: str, arrangement: Layout, kind: SessionKind
) -> None:
    spec = agent_job(plan(folder, "s1", layout=arrangement, kind=kind))["spec"]["template"]["spec"]
    [container] = spec["containers"]
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    wanted = {mount.claim for mount in layout.agent_mounts(arrangement, folder, "s1")}
    claimed = {volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"] if "emptyDir" not in volume}
    assert claimed == wanted


claims = some.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?\Z").map(lambda name: {"claim": name})
config_maps = some.sampled_from(["tmp", "home", "nanoclaw-data", "a"]).map(lambda name: {"config_map": name})
host_paths = some.sampled_from(["/", "/tmp", "/srv/docs", "/srv-docs"]).map(lambda path: {"host_path": path})


@given(sources=some.lists(claims | config_maps | host_paths, max_size=5))
@pytest.mark.parametrize("arrangement", Layout)
def test_every_additional_source_is_one_volume_with_a_name_of_its_own(arrangement: Layout, sources: list[dict]) -> None:
    extra = tuple(ExtraMount(f"/workspace/extra/{number}", **source) for number, source in enumerate(sources))
    spec = pod_spec(layout=arrangement, extra=extra)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    [container] = spec["containers"]
    assert (
        len(volumes)
        == len(spec["volumes"])
        == len(pod_spec(layout=arrangement)["volumes"]) + len(set(extra_sources(extra)))
    )
    assert all(re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in volumes)
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert [volume_source(mounted[mount.path]) for mount in extra] == list(extra_sources(extra))


def test_a_node_is_not_asked_to_make_a_folder_that_is_missing() -> None:
    spec = pod_spec(extra=(ExtraMount("/workspace/extra/docs", host_path="/srv/docs"),))
    assert spec["volumes"][-1]["hostPath"] == {"path": "/srv/docs", "type": "Directory"}


def extra_sources(extra: tuple[ExtraMount, ...]) -> Iterator[str]:
    return (f"{mount.claim}|{mount.config_map}|{mount.host_path}" for mount in extra)


def volume_source(volume: dict) -> str:
    claim = volume.get("persistentVolumeClaim", {}).get("claimName")
    return f"{claim}|{volume.get('configMap', {}).get('name')}|{volume.get('hostPath', {}).get('path')}"


def test_a_fingerprint_tells_what_a_pod_is_made_of_and_not_whose_it_is() -> None:
    one, other = plan("team", "s1"), plan("team", "s2", kind=SessionKind.TASK)
    assert fingerprint(one) == fingerprint(replace(other, near="worker-1", parked=True))
    for different in (
        plan("ops", "s1"),
        plan("team", "s1", image="registry.example/agent:2"),
        plan("team", "s1", pattern=Pattern.STATEFULSET),
        plan("team", "s1", extra=(ExtraMount("/workspace/extra/docs", claim="docs"),)),
        replace(one, node="worker-1"),
    ):
        assert fingerprint(different) != fingerprint(one)


def test_a_session_has_its_whole_deadline_however_long_its_agent_was_parked() -> None:
    def seconds(parked: bool) -> int:
        return agent_job(replace(plan("team", "s1"), parked=parked))["spec"]["activeDeadlineSeconds"]

    assert seconds(parked=True) - seconds(parked=False) > LONGEST_WAIT


def test_a_set_never_replaces_a_pod_by_itself() -> None:
    made = agent_set(plan("team", "s1", pattern=Pattern.STATEFULSET))["spec"]
    assert (made["replicas"], made["updateStrategy"], made["template"]["spec"]["restartPolicy"]) == (
        1,
        {"type": "OnDelete"},
        "Always",
    )
    assert "volumeClaimTemplates" not in made
    assert made["selector"]["matchLabels"].items() <= made["template"]["metadata"]["labels"].items()


def test_a_pod_that_belongs_to_a_node_runs_there_or_nowhere() -> None:
    spec = agent_job(replace(plan("team", "s1"), node="worker-1", near="worker-2"))["spec"]["template"]["spec"]
    [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["worker-1"]}]}
    assert "preferredDuringSchedulingIgnoredDuringExecution" not in spec["affinity"]["nodeAffinity"]
