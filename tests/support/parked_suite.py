"""What every backend keeps that parks agents, as tests over the fixture `site` of `backend_suite`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from nanoclaw_runtime.backends import cluster
from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.domain.model import SessionSpec
from nanoclaw_runtime.kube import attach as attach_module
from nanoclaw_runtime.kube.attach import AttachedStreams
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import PODS
from tests.support.backend_suite import NOW, results, spec
from tests.support.job_site import PATIENCE, JobSite


async def parked(site: JobSite, given: SessionSpec) -> RunningSession:
    """Its container runs."""
    session = await site.backend.prepare(given.plan)
    await site.pods.find(
        lambda pod: (
            pod.metadata.label("nanoclaw.dev/session") == given.plan.ref.session
            and pod.container("agent").running is not None
        ),
        Deadline.after(PATIENCE),
    )
    return session


async def uid_of_pod(site: JobSite, session: str) -> str:
    [pod] = await site.kube.list(PODS, namespace=site.namespace, labels=f"nanoclaw.dev/session={session}")
    return str(pod["metadata"]["uid"])


async def test_a_parked_agent_gets_the_input_of_its_session(site: JobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "REACHED_WITHIN", PATIENCE)  # on a busy machine another one would be started
    given = spec("p1", "output warm")
    await parked(site, given)
    uid = await uid_of_pod(site, "p1")
    session = await site.backend.start(given)
    assert await results(session) == [(0, "warm")]
    assert session.ref == given.plan.ref
    ran = [pod["metadata"]["uid"] for pod in await site.kube.list(PODS, namespace=site.namespace)]
    assert ran in ([uid], [])  # a set has removed it
    assert site.backend.waits("p1") is None


async def test_a_pod_that_is_not_there_yet_is_waited_for(site: JobSite) -> None:
    given = spec("p1", "output soon")
    await site.backend.prepare(given.plan)
    assert site.backend.waits("p1") is False
    assert await results(await site.backend.start(given)) == [(0, "soon")]


async def test_a_parked_agent_made_of_something_else_is_replaced(site: JobSite) -> None:
    await parked(site, spec("p1"))
    other = spec("p1", "output $KIND", env={"KIND": "new"})
    assert await results(await site.backend.start(other)) == [(0, "new")]


async def test_a_parked_agent_that_is_gone_is_replaced(site: JobSite) -> None:
    given = spec("p1", "output again")
    session = await parked(site, given)
    [pod] = await site.kube.list(PODS, namespace=site.namespace)
    await site.kube.delete(PODS, pod["metadata"]["name"], namespace=site.namespace)
    await site.pods.find(lambda pod: pod.metadata.deletion_timestamp is not None, Deadline.after(PATIENCE))
    assert session.parked
    assert await results(await site.backend.start(given)) == [(0, "again")]


async def test_a_second_controller_uses_what_the_first_one_parked(site: JobSite) -> None:
    given = spec("p1", "output kept")
    session = await parked(site, given)
    async with site.another() as other:
        [found] = await other.running()
        assert (found.ref.session, found.parked) == ("p1", session.parked)
        assert other.waits("p1") is False  # the image of this test never says that it has compiled
        assert await results(await other.start(given)) == [(0, "kept")]


async def test_a_parked_agent_that_is_not_needed_goes(site: JobSite) -> None:
    session = await parked(site, spec("p1"))
    await session.stop(grace=NOW)
    assert await site.alive() == []
    assert site.backend.waits("p1") is None


@pytest.mark.parametrize("kind", ["task", "messages"])
async def test_a_session_of_any_kind_takes_the_parked_agent(site: JobSite, kind: str) -> None:
    given = spec("p1", "output done")
    await parked(site, given)
    ref = replace(given.plan.ref, kind=type(given.plan.ref.kind)(kind))
    session = await site.backend.start(replace(given, plan=replace(given.plan, ref=ref)))
    assert session.ref == ref
    assert await results(session) == [(0, "done")]


async def test_a_parked_agent_is_reached_while_its_input_becomes_ready(
    site: JobSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, reached = spec("p1", "output warm"), asyncio.Event()
    await parked(site, given)
    stdin = asyncio.get_running_loop().create_future()

    async def attach(*arguments: Any, **options: Any) -> AttachedStreams:
        streams = await attach_module.attach(*arguments, **options)
        reached.set()
        return streams

    monkeypatch.setattr(cluster, "attach", attach)
    starting = asyncio.create_task(site.backend.start(SessionSpec(given.plan, stdin)))
    async with asyncio.timeout(PATIENCE):
        await reached.wait()
    stdin.set_result(await given.stdin)
    assert await results(await starting) == [(0, "warm")]


async def test_a_parked_agent_that_was_reached_goes_when_its_input_is_never_ready(site: JobSite) -> None:
    given = spec("p1", "output never")
    await parked(site, given)
    refused = asyncio.get_running_loop().create_future()
    refused.set_exception(StoreFailed("the disk is full"))
    with pytest.raises(StoreFailed):
        await site.backend.start(SessionSpec(given.plan, refused))
    assert await site.alive() == []
    assert site.backend.waits("p1") is None
