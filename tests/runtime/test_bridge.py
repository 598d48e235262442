"""Two folders kept equal over a real stream: what arrives, what is told, and what a broken stream changes."""

import asyncio
import contextlib
import errno
import os
import ssl
import time
from pathlib import Path

import pytest

from nanoclaw_runtime.bridge import pod as pod_module
from nanoclaw_runtime.bridge.protocol import DOWN, UP, Alive, Channel, Hello, Input, StreamEnded, Synced
from nanoclaw_runtime.bridge.tree import SessionFiles
from nanoclaw_runtime.contract import bridge
from tests.support.bridged import HOST, PATIENCE, Bridged, Pod, put, recorded, take, texts, until
from tests.support.fault_proxy import TcpProxy

# What a pod begins with


async def test_the_pod_has_its_folders_settings_and_skills_before_its_agent_starts(bridged):
    skill = bridged.tree / "project/container/skills/browser/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("how to browse")
    async with bridged.pod("team") as pod:
        assert sorted(path.name for path in pod.place.ipc.iterdir()) == ["input", "inputs", "messages", "tasks"]
        assert (pod.place.group / "logs").is_dir()
        assert (pod.place.sessions / "settings.json").is_file()
        assert (pod.place.sessions / "skills/browser/SKILL.md").read_text() == "how to browse"


async def test_main_gets_the_project_and_others_the_shared_memory(bridged):
    for name in ("project/README.md", "project/src/main.ts", "groups/global/CLAUDE.md"):
        (bridged.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (bridged.tree / name).write_text(name)
    async with bridged.pod("main") as main, bridged.pod("team", "s2") as team:
        found = [
            {str(path.relative_to(pod.place.carried)) for path in pod.place.carried.rglob("*.*")}
            for pod in (main, team)
        ]
    assert found == [{"project/README.md", "project/src/main.ts"}, {"groups/global/CLAUDE.md"}]


async def test_what_was_there_before_the_pod_arrives_before_it_is_ready(bridged, box):
    (bridged.tree / "data/ipc/main/current_tasks.json").write_text("[1]")
    await box.send("early", [1], recorded)
    async with bridged.pod() as pod:
        assert (pod.place.ipc / "current_tasks.json").read_text() == "[1]"
        assert texts(pod) == ["early"]


async def test_a_pod_whose_controller_is_away_is_not_ready(bridged, box):
    await bridged.stop()
    async with bridged.pod_that_waits() as pod:
        await asyncio.sleep(0.3)
        assert not pod.place.ready.exists()
        await bridged.start()
        await pod.ready()


async def test_more_files_than_are_carried_at_once_stay_behind_and_the_agent_starts(bridged, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.ipc.archive.MOST_FILES", 1)
    (bridged.tree / "project").mkdir()
    for name in ("one", "two"):
        (bridged.tree / "project" / name).touch()
    async with bridged.pod() as pod:
        assert list((pod.place.carried / "project").iterdir()) == []


async def test_small_files_count_with_the_block_that_each_takes(bridged, monkeypatch):
    monkeypatch.setattr(bridge, "LARGEST_CARRIED", 10_000)
    (bridged.tree / "project").mkdir()
    for name in ("one", "three", "two"):
        (bridged.tree / "project" / name).touch()
    async with bridged.pod() as pod:
        assert sorted(path.name for path in (pod.place.carried / "project").iterdir()) == ["one", "three"]


async def test_both_ends_live_while_files_are_looked_for_and_put_in_place(bridged, monkeypatch):
    heard, receive = [], Channel.receive

    async def hears(channel, *arguments):
        message = await receive(channel, *arguments)
        if isinstance(message, Alive):
            heard.append(channel._decoder)
        return message

    def while_heard_by(ends, function):
        """Not to return before those that receive meanwhile have heard from the other end again and again."""

        def slow(*arguments, **named):
            until_then, begun = time.monotonic() + PATIENCE, len(heard)
            while any(heard[begun:].count(end) < 3 for end in ends):
                assert time.monotonic() < until_then, "an end is silent"
                time.sleep(0.01)
            return function(*arguments, **named)

        return slow

    monkeypatch.setattr(Channel, "receive", hears)
    monkeypatch.setattr(bridge, "BEAT", 0.05)
    monkeypatch.setattr(SessionFiles, "carried", while_heard_by((UP, DOWN), SessionFiles.carried))
    monkeypatch.setattr(pod_module, "furnish", while_heard_by((UP,), pod_module.furnish))
    async with bridged.pod():
        assert bridged.metrics.registry.get_sample_value("nanoclaw_bridge_lost_total") == 0


def slowly(function):
    def slow(*arguments, **named):
        time.sleep(1)
        return function(*arguments, **named)

    return slow


async def test_snapshots_follow_their_changes(bridged, box):
    async with bridged.pod() as pod:
        for content in ("[1]", "[2]"):
            put(bridged.tree / "data/ipc/main/current_tasks.json", content)
            bridged.changed("main")
            await until(lambda content=content: read(pod.place.ipc / "current_tasks.json") == content)


async def test_a_snapshot_that_differs_in_nothing_but_what_it_says_arrives_too(bridged, box):
    source = bridged.tree / "data/ipc/main/current_tasks.json"
    async with bridged.pod() as pod:
        for content in ("[1]", "[2]"):
            aside = source.with_suffix(".aside")
            aside.write_text(content)
            os.utime(aside, ns=(1, 1))  # as of two that are written in one tick of the file system's clock
            aside.rename(source)
            bridged.changed("main")
            await until(lambda content=content: content == read(pod.place.ipc / "current_tasks.json"))


def read(file):
    return file.read_text() if file.exists() else ""


def test_what_goes_with_its_folder_while_it_is_looked_at_is_gone(tmp_path):
    files = SessionFiles(tmp_path, "main", "s1")
    assert (files.inputs(), files.input("1-aaaa.json")) == ([], None)
    assert (files.snapshots(), files.snapshot("current_tasks.json")) == ([], None)


# The end of a session


async def test_the_last_report_is_believed_when_the_pod_is_gone(bridged, box):
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        await until(lambda: texts(pod))
        take(pod)
        await box.send("left", [2], recorded)
    assert await box.pending() == {2}


async def test_the_next_process_of_the_controller_believes_it_too(bridged, box):
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        await until(lambda: texts(pod))
        take(pod)
    await bridged.stop()
    await bridged.start()
    assert await bridged.mailbox().pending() == set()


async def test_the_last_report_tells_what_an_earlier_stream_did_not(bridged, box):
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        await until(lambda: texts(pod))
        await pod.vanish()
        take(pod)
        pod.begin()
        await pod.end()
    assert await box.pending() == set()


async def test_an_input_that_a_power_cut_brought_back_is_told_again(bridged, box):
    inputs = bridged.tree / "data/ipc/main/inputs/s1"
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        [copy] = inputs.glob("*.json")
        content, version = copy.read_bytes(), copy.stat().st_mtime_ns
        await until(lambda: texts(pod))
        take(pod)
        await until(lambda: not copy.exists())
        await bridged.stop()
        await bridged.start()
        await until(lambda: bridged.streams)
        aside = copy.with_suffix(".aside")
        aside.write_bytes(content)
        os.utime(aside, ns=(version, version))
        aside.rename(copy)
        bridged.changed("main")
        await until(lambda: not copy.exists())
        assert texts(pod) == []


async def test_an_input_that_could_not_be_given_is_not_taken_for_one_that_the_agent_took(bridged, box, monkeypatch):
    rename, refused = os.rename, []

    def full(source, target, **where):
        folder = str(Path(f"/proc/self/fd/{where['src_dir_fd']}").readlink())
        if source == f"{target}.tmp" and folder.endswith("/claims/main/ipc/inputs/s1"):
            refused.append(source)
            if len(refused) == 1:
                raise OSError(errno.ENOSPC, "full")
        rename(source, target, **where)

    async with bridged.pod() as pod:
        monkeypatch.setattr(os, "rename", full)
        await box.send("text", [1], recorded)
        await until(lambda: texts(pod) == ["text"])
        assert len(refused) > 1
        assert await box.pending() == {1}


async def test_an_input_that_goes_while_it_is_looked_for_does_not_hide_the_others(bridged, box):
    for number in range(40):
        await box.send(f"{number}", [number], recorded)
    files = SessionFiles(bridged.tree, "main", "s1")
    *gone, (kept, _) = files.inputs()
    folder = bridged.tree / "data/ipc/main/inputs/s1"
    going = asyncio.get_running_loop().run_in_executor(None, lambda: [(folder / name).unlink() for name, _ in gone])
    looks = [await asyncio.to_thread(files.inputs)]
    while not going.done():
        looks.append(await asyncio.to_thread(files.inputs))
    assert all(kept in dict(look) for look in looks)


async def test_what_is_asked_of_a_stream_that_has_just_begun_is_answered_with_all_that_was_taken(
    bridged, box, monkeypatch
):
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        await until(lambda: texts(pod))
        await pod.vanish()
        take(pod)
        monkeypatch.setattr(SessionFiles, "inputs", slowly(SessionFiles.inputs))
        pod.begin()
        await until(lambda: bridged.streams)
        assert await box.pending() == set()


async def test_without_a_last_report_nobody_knows_what_was_taken(bridged, box, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.contract.bridge.LAST_REPORT", 0.2)
    async with bridged.pod() as pod:
        await box.send("text", [1], recorded)
        await until(lambda: texts(pod))
        await pod.vanish()
        with pytest.raises(OSError, match="did not say what its agent took"):
            await box.pending()


async def test_a_report_of_before_does_not_count_for_a_pod_that_came_back(bridged, box, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.contract.bridge.LAST_REPORT", 0.2)
    async with bridged.pod() as pod:
        await pod.end()
        assert await box.pending() == set()
        await until(lambda: not bridged.streams)
        pod.begin()
        await until(lambda: bridged.streams == 1)
        await pod.vanish()
        with pytest.raises(OSError, match="did not say"):
            await box.pending()


async def test_a_pod_that_came_back_is_asked_though_its_report_of_before_is_still_there(bridged, box, monkeypatch):
    async with bridged.pod() as pod:
        await box.send("taken", [1], recorded)
        await until(lambda: texts(pod))
        await pod.end()
        assert await box.pending() == {1}
        take(pod)
        await until(lambda: not bridged.streams)
        monkeypatch.setattr(SessionFiles, "forget_report", slowly(SessionFiles.forget_report))
        pod.begin()
        await until(lambda: bridged.streams)
        assert await box.pending() == set()


# Streams that break


@pytest.fixture
async def line(bridged):
    async with TcpProxy("127.0.0.1", bridged.port) as proxy:
        yield proxy


async def test_a_cut_stream_loses_nothing_and_delivers_nothing_twice(bridged, box, line):
    seen = []
    async with bridged.pod(port=line.port) as pod:
        for number in range(12):
            await box.send(f"text {number}", [number], recorded)
            line.cut()
            if number % 3 == 0:
                await until(lambda: texts(pod))
                seen += take(pod)
        while len(seen) < 12:
            await until(lambda: texts(pod))
            seen += take(pod)
        assert seen == [f"text {number}" for number in range(12)]
        await until(lambda: bridged.streams == 1)
    assert await box.pending() == set()


async def test_what_was_taken_while_the_controller_was_away_is_told_afterwards(bridged, box):
    async with bridged.pod() as pod:
        await box.send("one", [1], recorded)
        await box.send("two", [2], recorded)
        await until(lambda: len(texts(pod)) == 2)
        await bridged.stop()
        min(pod.inputs.glob("*.json")).unlink()
        await asyncio.sleep(0.5)
        await bridged.start()
        again = bridged.mailbox()
        assert await again.pending() == {2}
        assert texts(pod) == ["two"]


async def test_a_container_that_is_ended_in_the_moment_its_stream_breaks_ends(bridged, monkeypatch):
    async def breaks(_talk):
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
        raise StreamEnded("cut")

    monkeypatch.setattr(pod_module._Talk, "_down", breaks)
    async with bridged.pod_that_waits() as pod:
        await until(pod._life.done)
        assert pod._life.cancelled()


async def test_a_frozen_stream_is_given_up_by_both_ends_and_replaced(bridged, box, line, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.bridge.protocol.bridge.BEAT", 0.1)
    async with bridged.pod(port=line.port) as pod:
        line.freeze()
        await box.send("text", [1], recorded)
        pod.place = bridged.place()
        await pod.vanish()
        pod.begin()
        await until(lambda: texts(pod) == ["text"])
        assert bridged.streams == 1
        assert await box.pending() == {1}


async def test_of_two_streams_of_a_session_the_newer_one_counts(bridged, box):
    older, newer = await connected(bridged), await connected(bridged)
    for each in (older, newer):
        await each.send(Hello("main s1", carried=True))
        while not isinstance(await each.receive(), Synced):
            pass
    with contextlib.suppress(StreamEnded):
        while True:
            await older.receive()
    await box.send("text", [1], recorded)
    while not isinstance(await newer.receive(), Input):
        pass
    assert bridged.streams == 1
    await older.close()
    await newer.close()
    async with bridged.pod() as pod:
        assert texts(pod) == ["text"]


async def test_a_second_process_of_the_container_waits_for_the_first_to_be_gone(bridged, box):
    async with bridged.pod() as first:
        second = Pod(first.place)
        second.begin()
        await box.send("text", [1], recorded)
        await until(lambda: texts(first) == ["text"])
        assert take(first) == ["text"]
        await first.vanish()
        await box.send("another", [2], recorded)
        await until(lambda: texts(second))
        assert take(second) == ["another"]
        await second.end()
    assert await box.pending() == set()


async def connected(bridged):
    tls = ssl.create_default_context(cadata=bridged.certificate.pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridged.port, ssl=tls, server_hostname=HOST)
    return Channel(reader, writer, DOWN, largest=bridge.LARGEST_INPUT)


# Certificates


async def test_a_pod_trusts_its_controller_alone(bridged, tmp_path):
    other = Bridged(tmp_path / "other")
    other.port = bridged.port
    async with other.pod_that_waits() as pod:
        await asyncio.sleep(0.5)
        assert not pod.place.ready.exists()
        await pod.vanish()
