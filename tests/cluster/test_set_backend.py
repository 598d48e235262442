"""Sessions in the StatefulSet of their group on a real node: what every backend keeps, and what only this one shows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import JOBS, PODS, STATEFUL_SETS, StatefulSet, slim
from tests.support.backend_suite import *  # noqa: F403
from tests.support.backend_suite import NOW, results, spec
from tests.support.job_site import PATIENCE, JobSite
from tests.support.parked_suite import *  # noqa: F403

pytestmark = pytest.mark.cluster


@pytest.fixture
async def site(kube: KubeClient, furnished: str) -> AsyncIterator[JobSite]:
    """An installation without a controller."""
    async with JobSite.open(kube, furnished, Pattern.STATEFULSET) as opened:
        yield opened


async def the_set(site: JobSite) -> StatefulSet:
    return slim(await site.kube.get(STATEFUL_SETS, names.stateful_set("main"), namespace=site.namespace), StatefulSet)


async def test_one_set_has_all_sessions_of_a_group_one_after_the_other(site: JobSite) -> None:
    uids = set()
    for number in ("s1", "s2", "s3"):
        session = await site.backend.start(spec(number, f"output {number}"))
        found = await the_set(site)
        uids.add(found.metadata.uid)
        assert (found.spec.replicas, found.metadata.label(labels.SESSION)) == (1, number)
        assert await results(session) == [(0, number)]
    assert len(uids) == 1
    assert await site.kube.list(JOBS, namespace=site.namespace) == []


async def test_a_session_that_is_over_leaves_no_pod(site: JobSite) -> None:
    session = await site.backend.start(spec("s1", "output done"))
    assert await results(session) == [(0, "done")]
    await site.pods.until(f"{names.stateful_set('main')}-0", lambda pod: pod is None, Deadline.after(PATIENCE))
    assert (await the_set(site)).spec.replicas == 0
    assert await site.kube.list(PODS, namespace=site.namespace) == []


async def test_an_end_nobody_saw_is_told_though_its_container_started_again(site: JobSite) -> None:
    first = await site.backend.start(spec("s1", "output one", "output two", "exit 4"))
    await anext(first.outputs())
    await site.pods.find(lambda pod: pod.restarts("agent") == 1, Deadline.after(PATIENCE))
    async with site.another() as other:
        [adopted] = await other.running()
        assert [output.output.result for output in [await anext(adopted.outputs(skip=1))]] == ["two"]
    await first.stop(grace=NOW)
    assert await site.alive() == []
