"""What agents ask for, carried over a real stream: each request once, as it was, for as long as it takes."""

import asyncio
import json
import os

import pytest

from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc.requests import LARGEST_FILE, RequestFolder
from tests.support.bridged import PATIENCE, put, recorded, texts, until
from tests.support.fault_proxy import TcpProxy


def desk(bridged, kind=RequestKind.TASK, folder="main"):
    return RequestFolder(bridged.tree, folder, kind)


async def a_request(bridged, kind=RequestKind.TASK):
    look, found = desk(bridged, kind), []

    def there():
        found.extend(file for name in look.names() if (file := look.read(name)) is not None)
        return found

    await until(there)
    return look, found[0]


@pytest.mark.parametrize("kind", RequestKind)
async def test_a_request_is_the_same_on_both_sides(bridged, kind):
    async with bridged.pod() as pod:
        file = pod.place.ipc / kind / "1.json"
        aside = file.with_suffix(".aside")
        aside.write_text('{"type": "message"}')
        os.utime(aside, ns=(1, 1_700_000_000_123_456_789))
        aside.rename(file)
        _, found = await a_request(bridged, kind)
        there = RequestFolder(bridged.root, "main", kind)
        there._root = pod.place.ipc
        assert (found.document, found.key) == ({"type": "message"}, there.read("1.json").key)


async def test_a_request_stays_with_the_agent_until_it_is_dealt_with(bridged):
    async with bridged.pod() as pod:
        file = pod.place.ipc / "tasks/1.json"
        put(file, "{}")
        look, found = await a_request(bridged)
        await asyncio.sleep(0.5)
        assert file.exists()
        assert look.done(found)
        await until(lambda: not file.exists())


async def test_a_newer_file_of_the_same_name_is_another_request(bridged):
    async with bridged.pod() as pod:
        file = pod.place.ipc / "tasks/1.json"
        put(file, '{"number": 1}')
        look, first = await a_request(bridged)
        put(file, '{"number": 2}')
        look.done(first)
        await until(lambda: look.names() and look.read("1.json").document == {"number": 2})
        look.done(look.read("1.json"))
        await until(lambda: not file.exists())


async def test_what_a_dead_pod_left_is_carried_by_the_next(bridged):
    async with bridged.pod() as pod:
        pass
    put(pod.place.ipc / "tasks/1.json", "{}")
    async with bridged.pod("main", "s2"):
        look, found = await a_request(bridged)
        assert look.done(found)
        await until(lambda: not (pod.place.ipc / "tasks/1.json").exists())


async def test_a_request_comes_once_more_with_the_same_key_when_the_stream_broke_behind_it(bridged):
    async with TcpProxy("127.0.0.1", bridged.port) as line, bridged.pod(port=line.port) as pod:
        put(pod.place.ipc / "tasks/1.json", "{}")
        look, found = await a_request(bridged)
        await bridged.stop()
        look.done(found)
        await bridged.start()
        _, again = await a_request(bridged)
        assert again.key == found.key
        assert look.done(again)
        await until(lambda: not (pod.place.ipc / "tasks/1.json").exists())


async def test_hundreds_of_requests_arrive_a_hundred_at_a_time(bridged):
    async with bridged.pod() as pod:
        for number in range(250):
            put(pod.place.ipc / f"tasks/{number:03}.json", str(number))
        look, seen = desk(bridged), set()
        while len(seen) < 250:
            await until(look.names)
            names = look.names()
            assert len(list((bridged.tree / "data/ipc/main/tasks").iterdir())) <= 100
            for name in names:
                found = look.read(name)
                seen.add(found.document)
                look.done(found)
        assert seen == set(range(250))
        await until(lambda: not list((pod.place.ipc / "tasks").iterdir()))


async def test_requests_that_grow_while_they_wait_do_not_break_the_stream(bridged, box):
    async with bridged.pod() as pod:
        for content in ("{}", json.dumps("x" * 1_000_000)):
            for number in range(20):
                (pod.place.ipc / f"tasks/{number:02}.json").write_text(content)
            await until(lambda: len(desk(bridged).names()) == 20)
        await until(lambda: (bridged.tree / "data/ipc/main/tasks/07.json").stat().st_size > 1_000_000)
        await box.send("text", [1], recorded)
        await until(lambda: texts(pod) == ["text"])
        assert await box.pending() == {1}
        assert bridged.metrics.registry.get_sample_value("nanoclaw_bridge_lost_total") == 0


def a_large_file(file):
    """Made beside and renamed, as the agent does: a file written in place is carried while it is still small."""
    aside = file.with_suffix(".tmp")
    aside.write_bytes(b"x" * (LARGEST_FILE + 1))
    aside.rename(file)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda file: file.mkdir(), "no plain file", id="folder"),
        pytest.param(lambda file: file.symlink_to("/etc/passwd"), "no plain file", id="link"),
        pytest.param(os.mkfifo, "no plain file", id="pipe"),
        pytest.param(a_large_file, "larger than", id="large"),
    ],
)
async def test_what_is_no_request_is_told_as_such_and_goes(bridged, make, problem):
    async with bridged.pod() as pod:
        file = pod.place.ipc / "tasks/1.json"
        make(file)
        look, found = await a_request(bridged)
        assert problem in found.problem
        assert look.quarantine(found)
        await until(lambda: not os.path.lexists(file))


async def test_a_folder_that_an_agent_replaced_by_a_link_does_not_stop_its_input(bridged, box):
    async with bridged.pod() as pod:
        elsewhere = bridged.root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "secret.json").write_text("{}")
        (pod.place.ipc / "tasks").rmdir()
        (pod.place.ipc / "tasks").symlink_to(elsewhere)
        await box.send("text", [1], recorded)
        await until(lambda: texts(pod) == ["text"])
        assert await box.pending() == {1}
        assert desk(bridged).names() == []


@pytest.mark.parametrize(("broken", "whole"), [("tasks", RequestKind.MESSAGE), ("messages", RequestKind.TASK)])
async def test_a_folder_that_cannot_be_read_does_not_keep_what_is_asked_in_the_other(bridged, broken, whole):
    async with bridged.pod() as pod:
        (pod.place.ipc / broken).rmdir()
        (pod.place.ipc / broken).symlink_to(bridged.root)
        put(pod.place.ipc / f"{whole}/1.json", "{}")
        look, found = await a_request(bridged, whole)
        assert look.done(found)
        await until(lambda: not (pod.place.ipc / f"{whole}/1.json").exists())


async def test_requests_of_the_last_moment_arrive(bridged):
    async with bridged.pod() as pod:
        put(pod.place.ipc / "messages/last.json", "{}")
    assert desk(bridged, RequestKind.MESSAGE).names() == ["last.json"]


async def test_a_request_of_the_last_moment_that_is_dealt_with_is_not_left_for_the_next_session(bridged, monkeypatch):
    monkeypatch.setattr(bridge, "LAST_HANDLED", PATIENCE)
    async with bridged.pod() as pod:
        put(pod.place.ipc / "tasks/1.json", "{}")
        ending = asyncio.create_task(pod.end())
        look, found = await a_request(bridged)
        assert look.done(found)
        await ending
    assert list((pod.place.ipc / "tasks").iterdir()) == []
