"""What every backend keeps, as tests over a fixture `site`: the place where its agents run.

A test file makes them its own by importing them all. What only one backend can show (its objects,
its diagnoses of a start) is tested beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Protocol

import pytest

from nanoclaw_runtime.backends.base import Backend, RunningSession
from nanoclaw_runtime.contract.config import Resources
from nanoclaw_runtime.domain.errors import FailureKind, SessionFailed, StoreFailed
from nanoclaw_runtime.domain.model import SessionSpec
from tests.support.plans import plan, ready
from tests.support.script_agent import IMAGE, script

NOW = timedelta(0)
LONG = timedelta(seconds=90)
SMALL = Resources(cpu_request="10m", memory_request="16Mi", cpu_limit="1", memory_limit="64Mi")


class Site(Protocol):
    """One installation: groups `main` and `team`, and agents whose input is a shell script."""

    backend: Backend

    def another(self) -> contextlib.AbstractAsyncContextManager[Backend]:
        """A backend of another process, over the same agents."""
        ...

    async def alive(self) -> list[str]:
        """The sessions whose agent runs, or may yet."""
        ...

    async def has_agent(self, session: str) -> None:
        """Return when there is something of this session that has to be undone."""
        ...


def spec(
    session: str, *lines: str, folder: str = "main", resources: Resources = SMALL, image: str = IMAGE, **more
) -> SessionSpec:
    return SessionSpec(plan(folder, session, image=image, resources=resources, **more), ready(script(*lines)))


async def results(session: RunningSession, skip: int = 0) -> list[tuple[int, str | None]]:
    return [(output.ordinal, output.output.result) async for output in session.outputs(skip)]


async def failure(session: RunningSession, skip: int = 0) -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await results(session, skip)
    return caught.value


async def test_a_session_answers_and_ends(site: Site) -> None:
    session = await site.backend.start(
        spec("s1", "output one", "echo noise", "output two >&1; echo aside >&2", "output three")
    )
    assert await results(session) == [(0, "one"), (1, "two"), (2, "three")]
    await session.stop(grace=NOW)
    assert await site.alive() == []


async def test_the_agent_sees_its_folders_and_may_write_where_it_should(site: Site) -> None:
    places = "/workspace/group /workspace/ipc /workspace/ipc/input /home/node /home/node/.claude /tmp"
    writable = f"for d in {places}; do : > $d/probe || exit 3; done"
    protected = "if : > /workspace/project/probe; then exit 4; fi; if : > /probe; then exit 5; fi"
    session = await site.backend.start(spec("s1", writable, f"( {protected} ) 2>/dev/null || true", 'output "$HOME"'))
    assert await results(session) == [(0, "/home/node")]


async def test_what_an_agent_wrote_is_there_for_the_next_one(site: Site) -> None:
    first = await site.backend.start(spec("s1", "echo kept > /workspace/group/memory"))
    assert await results(first) == []
    second = await site.backend.start(spec("s2", 'output "$(cat /workspace/group/memory)"'))
    assert await results(second) == [(0, "kept")]


async def test_a_large_input_arrives_whole(site: Site) -> None:
    large = spec("s1", *["# padding" * 20] * 10_000, 'output "$(wc -c < /tmp/input)"')
    assert await results(await site.backend.start(large)) == [(0, str(len(await large.stdin)))]


async def test_a_large_output_arrives_whole(site: Site) -> None:
    words = "output $(head -c 1000000 /dev/zero | tr '\\0' x)"
    session = await site.backend.start(spec("s1", words, "output end"))
    (_, large), (_, end) = await results(session)
    assert (len(large), end) == (1_000_000, "end")


async def test_a_failing_agent_tells_its_code_and_last_words(site: Site) -> None:
    session = await site.backend.start(spec("s1", "output partial", "echo it broke >&2", "exit 3"))
    failed = await failure(session)
    assert (failed.diagnosis.kind, failed.diagnosis.exit_code) == (FailureKind.EXIT, 3)
    assert "it broke" in failed.diagnosis.operator


async def test_too_little_memory_is_named(site: Site) -> None:
    failed = await failure(await site.backend.start(spec("s1", "tail /dev/zero")))
    assert failed.diagnosis.kind is FailureKind.OUT_OF_MEMORY


async def test_a_second_controller_adopts_and_finishes_the_answer(site: Site) -> None:
    first = await site.backend.start(spec("s1", "output one", "output two", "sleep 3", "output three"))
    outputs = first.outputs()
    assert (await anext(outputs)).ordinal == 0
    await outputs.aclose()
    async with site.another() as other:
        [adopted] = await other.running()
        assert adopted.ref == first.ref
        assert await results(adopted, skip=1) == [(1, "two"), (2, "three")]


async def test_what_was_printed_while_nobody_listened_is_not_lost(site: Site) -> None:
    first = await site.backend.start(spec("s1", "output one", "output two", "exit 4"))
    outputs = first.outputs()
    assert (await anext(outputs)).ordinal == 0
    await outputs.aclose()
    async with site.another() as other:
        [adopted] = await other.running()
        found = adopted.outputs(skip=1)
        assert (await anext(found)).output.result == "two"
        with pytest.raises(SessionFailed) as caught:
            await anext(found)
    assert caught.value.diagnosis.exit_code == 4


async def test_a_log_that_lost_its_beginning_is_no_good_end(site: Site) -> None:
    session = await site.backend.start(spec("s1", "output one", "output two"))
    outputs = session.outputs()
    assert [(await anext(outputs)).ordinal, (await anext(outputs)).ordinal] == [0, 1]
    await outputs.aclose()
    async with site.another() as other:
        [adopted] = await other.running()
        with pytest.raises(SessionFailed, match="only 2 of at least 3 outputs"):
            await results(adopted, skip=3)


async def test_stopping_ends_a_stubborn_agent(site: Site) -> None:
    session = await site.backend.start(spec("s1", "trap '' TERM", "output one", "sleep 1000"))
    await session.stop(grace=NOW)
    assert await site.alive() == []
    assert await site.backend.running() == []
    await session.stop(grace=NOW)
    failed = await failure(session)
    assert failed.diagnosis.kind is FailureKind.STOPPED


async def test_an_agent_on_its_way_out_may_finish(site: Site) -> None:
    session = await site.backend.start(spec("s1", "sleep 2", "output goodbye"))
    stopping = asyncio.create_task(session.stop(grace=LONG))
    assert await results(session) == [(0, "goodbye")]
    await stopping


async def test_the_next_session_of_a_group_waits_until_the_agent_is_gone(site: Site) -> None:
    first = await site.backend.start(spec("s1", "sleep 1000"))
    second = asyncio.create_task(site.backend.start(spec("s2", "output second")))
    other = await site.backend.start(spec("s3", "output other", folder="team"))
    assert await results(other) == [(0, "other")]
    assert not second.done()
    await first.stop(grace=NOW)
    assert await results(await second) == [(0, "second")]
    await failure(first)


async def test_a_predecessor_that_stays_is_named(site: Site) -> None:
    first = await site.backend.start(spec("s1", "sleep 1000"))
    with pytest.raises(SessionFailed, match="session s1 still runs"):
        await site.backend.start(spec("s2", start_timeout=1))
    await first.stop(grace=NOW)
    await failure(first)


async def test_a_cancelled_start_leaves_nothing(site: Site) -> None:
    # More than every buffer on the way holds, to an agent that does not read.
    slow = spec("s1", *["# padding" * 100] * 3000, env={"START_DELAY": "1000"})
    starting = asyncio.create_task(site.backend.start(slow))
    await site.has_agent("s1")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await site.alive() == []


async def test_an_image_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(SessionFailed) as caught:
        await site.backend.start(spec("s1", image="localhost/not/there:1"))
    assert caught.value.diagnosis.kind is FailureKind.IMAGE
    assert "localhost/not/there:1" in caught.value.diagnosis.operator
    assert await site.alive() == []


@pytest.mark.parametrize("error", [OSError("the volume is full"), StoreFailed("the disk is full")])
async def test_what_keeps_an_input_from_being_ready_is_told_and_nothing_is_made(site: Site, error: Exception) -> None:
    given = spec("s1", "output never")
    refused = asyncio.get_running_loop().create_future()
    refused.set_exception(error)
    with pytest.raises(type(error)):
        await site.backend.start(SessionSpec(given.plan, refused))
    assert await site.alive() == []
    assert await results(await site.backend.start(spec("s2", "output next"))) == [(0, "next")]
