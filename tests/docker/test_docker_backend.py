"""Sessions as containers on a real Docker engine: what every backend keeps, and what only this one shows."""

import asyncio
from dataclasses import replace

import pytest

from nanoclaw_runtime.backends.docker_client import DockerClient, EngineAway
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.errors import FailureKind, SessionFailed
from tests.support.backend_suite import *  # noqa: F403
from tests.support.backend_suite import NOW, failure, results, spec
from tests.support.docker_site import DockerSite

pytestmark = pytest.mark.docker


async def test_an_ended_container_stays_to_be_looked_at_and_goes_in_time(engine, tree):
    async with DockerSite.open(engine, tree, keep=0) as site:
        assert await results(await site.backend.start(spec("s1", "output one"))) == [(0, "one")]
        async with asyncio.timeout(90):
            while site.containers():
                await asyncio.sleep(0.1)


async def test_an_ended_container_stays_for_the_operator(site):
    session = await site.backend.start(spec("s1", "output one"))
    assert await results(session) == [(0, "one")]
    await session.stop(grace=NOW)
    assert "one" in site.docker("logs", names.job("main", "s1"))


async def test_the_input_is_nowhere_on_the_engine(site):
    session = await site.backend.start(spec("s1", "# password: swordfish-1234", "output done"))
    assert await results(session) == [(0, "done")]
    assert "swordfish" not in str(site.inspected(names.job("main", "s1")))


async def test_an_agent_may_do_no_more_than_in_a_pod(site):
    session = await site.backend.start(spec("s1", "sleep 1000"))
    inspected = site.inspected(names.job("main", "s1"))
    host = inspected["HostConfig"]
    assert inspected["Config"]["User"] == "1000:1000"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 * 2**20, 64 * 2**20, 10**9)
    await session.stop(grace=NOW)
    await failure(session)


async def test_what_root_put_into_a_groups_folder_is_the_agents(site, tmp_path):
    outside = tmp_path / "outside"
    outside.touch()
    notes = site.tree / "groups" / "main" / "deep" / "notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_text("kept ")
    (notes.parent / "link").symlink_to(outside)
    session = await site.backend.start(spec("s1", "cd /workspace/group/deep", "printf more >> notes.md", ": > new"))
    assert await results(session) == []
    assert notes.read_text() == "kept more"
    assert outside.stat().st_uid == 0


async def test_a_folder_of_the_host_is_mounted_as_it_was_allowed(site, tmp_path):
    (tmp_path / "shared, notes").mkdir()
    (tmp_path / "shared, notes" / "word").write_text("seen")
    extra = ExtraMount("/workspace/extra/notes", host_path=str(tmp_path / "shared, notes"))
    given = spec("s1", "cd /workspace/extra/notes", "( : > new ) 2>/dev/null && exit 3", 'output "$(cat word)"')
    session = await site.backend.start(replace(given, plan=replace(given.plan, extra=(extra,))))
    assert await results(session) == [(0, "seen")]


async def test_a_lost_client_leaves_no_gap_and_no_repetition(site):
    session = await site.backend.start(
        spec("s1", "output one", "sleep 1", "output two", "echo aside >&2", "sleep 1", "output three")
    )
    seen = []
    async for output in session.outputs():
        seen.append((output.ordinal, output.output.result))
        if output.ordinal == 0:
            session._client._process.kill()
    assert seen == [(0, "one"), (1, "two"), (2, "three")]


async def test_a_removed_container_is_no_regular_end(site):
    session = await site.backend.start(spec("s1", "output one", "sleep 1000"))
    outputs = session.outputs()
    assert (await anext(outputs)).output.result == "one"
    site.docker("rm", "--force", names.job("main", "s1"))
    with pytest.raises(SessionFailed, match="removed by somebody") as caught:
        await anext(outputs)
    assert caught.value.diagnosis.kind is FailureKind.STOPPED


async def test_a_killed_container_is_told_apart_from_a_failing_agent(site):
    session = await site.backend.start(spec("s1", "output one", "sleep 1000"))
    site.docker("kill", names.job("main", "s1"))
    assert (await failure(session)).diagnosis.kind is FailureKind.STOPPED


async def test_two_trees_on_one_engine_do_not_see_each_other(site, engine, tmp_path):
    ours = await site.backend.start(spec("s1", "sleep 1000"))
    async with DockerSite.open(engine, tmp_path / "other") as other:
        theirs = await other.backend.start(spec("s2", "output two"))
        assert await results(theirs) == [(0, "two")]
        assert [session.ref.session for session in await other.backend.running()] == ["s2"]
    assert [session.ref.session for session in await site.backend.running()] == ["s1"]
    await ours.stop(grace=NOW)
    await failure(ours)


async def test_a_container_of_the_same_name_is_told(site):
    name = names.job("main", "s1")
    site.docker("create", "--name", name, "--network", "none", "localhost/nanoclaw-test/script-agent:1")
    with pytest.raises(SessionFailed, match="already in use") as caught:
        await site.backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.REFUSED
    assert name in site.docker("ps", "--all", "--format", "{{.Names}}")
    site.docker("rm", name)


async def test_an_image_name_that_is_none_is_told(site):
    with pytest.raises(SessionFailed, match="invalid reference") as caught:
        await site.backend.start(spec("s1", image="Not/An Image"))
    assert caught.value.diagnosis.kind is FailureKind.IMAGE


async def test_a_link_in_place_of_a_folder_is_not_followed(site, tmp_path):
    (tmp_path / "secret").mkdir()
    (site.tree / "groups").mkdir()
    (site.tree / "groups" / "main").symlink_to(tmp_path / "secret")
    with pytest.raises(SessionFailed, match="folders cannot be made ready") as caught:
        await site.backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.VOLUME
    assert site.containers() == []


async def test_an_engine_that_is_not_there_is_told_in_one_sentence(tree, tmp_path):
    docker = DockerClient(f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(EngineAway, match="Cannot connect to the Docker daemon"):
        await docker.ready()


async def test_an_engine_that_restarts_ends_agents_and_no_answer_is_lost(engine, tree):
    async with DockerSite.open(engine, tree) as site:
        session = await site.backend.start(spec("s1", "output one", "sleep 1000"))
        outputs = session.outputs()
        assert (await anext(outputs)).output.result == "one"
        await asyncio.to_thread(engine.stop)
        await asyncio.to_thread(engine.start)
        with pytest.raises(SessionFailed) as caught:
            await anext(outputs)
        assert caught.value.diagnosis.kind is FailureKind.STOPPED
        again = await site.backend.start(spec("s2", "output two"))
        assert await results(again) == [(0, "two")]
