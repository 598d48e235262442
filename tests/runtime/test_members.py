"""Two members on loopback: real servers, real databases, scripted agents; any of them takes any request."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
from datetime import UTC, datetime
from functools import partial

import httpx
import pytest

from nanoclaw_runtime.api import members
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.host import host_routers
from nanoclaw_runtime.api.members import FORWARDED, Forwarding, client
from nanoclaw_runtime.api.places import Place
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract.config import Groups, GroupSpec, NodelocalSettings
from nanoclaw_runtime.domain.assignment import Assigned, Assignments
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.members.handover import Handover
from nanoclaw_runtime.members.holdings import Holdings
from nanoclaw_runtime.members.membership import Membership
from nanoclaw_runtime.members.presence import Peer
from nanoclaw_runtime.members.record import Edition
from nanoclaw_runtime.store.records import EventType, MessageState
from nanoclaw_runtime.telemetry import Metrics
from tests.support.house import House

TOKEN = "correct horse"
WHERE = {"main": "n1", "a": "n1", "b": "n2", "lost": "n3"}
"""Node of each group; nobody is at `n3`."""


class Street:
    """Members `n1` and `n2`, as the record says; `n3` has not been seen for three minutes."""

    def __init__(self, tmp_path):
        self.where = dict(WHERE)
        self.houses = {}
        self.ports = {}
        self._tmp_path = tmp_path
        self._lives = contextlib.AsyncExitStack()
        self._serving = {}

    async def __aenter__(self):
        self.http = await self._lives.enter_async_context(client())
        self.caller = await self._lives.enter_async_context(
            httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=30)
        )
        for node in ("n1", "n2"):
            (self._tmp_path / node).mkdir()
            house = House(self._tmp_path / node)
            own = [folder for folder, at in self.where.items() if at == node]
            house.groups = Groups(
                groups=[GroupSpec(folder=folder, name=folder, requires_trigger=False) for folder in own]
            )
            self.houses[node] = await self._lives.enter_async_context(house)
            await self.open(node)
        return self

    async def __aexit__(self, *_):
        for node in list(self._serving):
            await self.shut(node)
        await self._lives.aclose()

    async def open(self, node):
        host = self.houses[node].host
        between = partial(Forwarding, members=Neighbour(self, node), http=self.http)
        app = create_app(host.controller, lambda: TOKEN, Metrics(), host_routers(host), between=between)
        listener = listen("127.0.0.1", 0)
        self.ports[node] = listener.getsockname()[1]
        self._serving[node] = asyncio.create_task(serve_on(app, listener))

    async def shut(self, node):
        """Its API is gone; its address is still told."""
        serving = self._serving.pop(node)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    def at(self, node, path):
        return f"http://127.0.0.1:{self.ports[node]}/v1{path}"

    async def get(self, path, node="n1", **more):
        return await self.caller.get(self.at(node, path), **more)

    async def send(self, folder, text="hello", node="n1"):
        return await self.caller.post(self.at(node, f"/groups/{folder}/messages"), json={"text": text})

    def place(self, node):
        silent = {"n3": 180.0}.get(node, 1.0)
        return Place(node, f"127.0.0.1:{self.ports[node]}" if node in self.ports else "", silent)


class Neighbour:
    """`Elsewhere` as one member sees it."""

    def __init__(self, street, node):
        self.street, self.node = street, node

    def place(self, folder):
        node = self.street.where.get(folder)
        return None if node in (None, self.node) else self.street.place(node)

    def waits(self, folder):
        return "has no node yet" if folder == "new" else None

    def others(self):
        return [self.street.place(node) for node in sorted({*self.street.where.values()} - {self.node})]


@pytest.fixture
async def street(tmp_path):
    async with Street(tmp_path) as street:
        yield street


@pytest.fixture
async def whole(street):
    """Without the node that is gone."""
    del street.where["lost"]
    return street


async def lines_until(response, event):
    """The data of the first event of a kind."""
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name == event:
            return json.loads(line.removeprefix("data: "))
    raise AssertionError(f"no {event}")


async def test_a_message_to_any_member_is_answered_by_the_one_that_has_the_group(street):
    accepted = await street.send("b", "good morning")
    assert accepted.status_code == 202
    assert accepted.headers["Location"] == "/v1/groups/b/messages/1"
    agent = await street.houses["n2"].backend.agent(0)
    assert "good morning" in agent.stdin["prompt"]
    async with street.caller.stream("GET", street.at("n1", "/groups/b/events?after=0")) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        await agent.say("the same to you")
        assert (await lines_until(stream, "answer"))["payload"]["text"] == "the same to you"
    resumed = {"Last-Event-ID": str(accepted.json()["event"])}
    async with street.caller.stream("GET", street.at("n1", "/groups/b/events"), headers=resumed) as stream:
        assert (await lines_until(stream, "answer"))["payload"]["text"] == "the same to you"
    assert street.houses["n1"].backend.agents == []


async def test_a_group_of_a_node_that_is_gone_is_told_of_with_its_node_and_how_long(street):
    answer = await street.send("lost")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["detail"] == (
        "group 'lost' is on node 'n3', which has not been seen for 3 min; its data is there: "
        "try again when that node is back"
    )


async def test_a_group_of_a_member_that_does_not_answer_is_told_of_as_well(whole):
    await whole.shut("n2")
    answer = await whole.send("b")
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("group 'b' is on node 'n2', whose controller does not answer")


@contextlib.asynccontextmanager
async def frozen(street, node, *, says=b""):
    """Its process stands still: connections are taken, and nothing more is said on them than this."""

    async def stand_still(reader, writer):
        writer.write(says)
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    await street.shut(node)
    server = await asyncio.start_server(stand_still, "127.0.0.1", 0)
    street.ports[node] = server.sockets[0].getsockname()[1]
    async with server:
        yield


async def test_a_member_that_stands_still_keeps_nobody_waiting_for_ever(whole, monkeypatch):
    monkeypatch.setattr(members, "SILENCE", 0.5)
    async with frozen(whole, "n2"):
        answer = await whole.send("b")
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("group 'b' is on node 'n2', whose controller does not answer")


async def test_a_stream_of_a_member_that_stands_still_breaks_off_so_that_its_reader_looks_again(whole, monkeypatch):
    """Its group may be elsewhere by then."""
    monkeypatch.setattr(members, "SILENCE", 0.5)
    begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n:\r\n"
    address = whole.at("n1", "/groups/b/events")
    async with frozen(whole, "n2", says=begun), whole.caller.stream("GET", address) as stream:
        assert stream.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            _ = [piece async for piece in stream.aiter_raw()]


async def test_a_group_without_a_node_is_tried_again_and_one_that_is_not_there_is_not(street):
    assert (await street.send("new")).status_code == 503
    assert (await street.send("nonsense")).status_code == 404


async def test_a_request_is_passed_on_once(whole):
    whole.where["b"] = "n1"  # n1 knows that it is its own by now, n2 does not believe itself so any more
    headers = {FORWARDED: "n1"}
    answer = await whole.caller.get(whole.at("n2", "/groups/b"), headers=headers)
    assert (answer.status_code, "changing its node" in answer.text) == (503, True)


async def test_a_caller_without_the_token_reaches_no_member(street):
    answer = await street.caller.get(street.at("n1", "/groups/b"), headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


async def test_lists_are_joined_and_say_whose_part_is_missing(street):
    await street.send("a")
    await street.send("b")
    await street.houses["n1"].backend.agent(0)
    await street.houses["n2"].backend.agent(0)
    groups = (await street.get("/groups")).json()
    assert [(group["folder"], group["node"]) for group in groups["groups"]] == [
        ("a", "n1"),
        ("b", "n2"),
        ("main", "n1"),
    ]
    assert groups["missing"] == [{"node": "n3", "reason": "not seen for 3 min"}]
    sessions = (await street.get("/sessions", node="n2")).json()["sessions"]
    assert {session["folder"] for session in sessions} == {"a", "b"}
    queue = (await street.get("/queue")).json()
    assert (queue["limit"], queue["active"]) == (10, 2)


async def test_records_that_are_carried_elsewhere_are_never_carried_in_part(street):
    for path in ("/transfer/groups", "/transfer/tasks", "/transfer/chats"):
        answer = await street.get(path)
        assert (answer.status_code, "n3" in answer.json()["detail"]) == (503, True)


async def test_the_inventory_of_all_members_is_one(whole):
    inventory = (await whole.get("/transfer/groups")).json()
    assert [group["spec"]["folder"] for group in inventory["groups"]] == ["a", "main", "b"]
    assert "node" not in inventory["groups"][0]


async def test_what_is_named_by_its_id_alone_is_found_wherever_it_is(whole):
    body = {"prompt": "water the plants", "kind": "cron", "value": "0 9 * * *"}
    task = (await whole.caller.post(whole.at("n1", "/groups/b/tasks"), json=body)).json()["id"]
    assert [each.id for each in await whole.houses["n2"].tasks.list(None)] == [task]
    changed = await whole.caller.patch(whole.at("n1", f"/tasks/{task}"), json={"state": "paused"})
    assert (changed.status_code, changed.json()["state"]) == (200, "paused")
    assert [each["node"] for each in (await whole.get("/tasks")).json()["tasks"]] == ["n2"]
    assert len((await whole.get("/tasks?group=b")).json()["tasks"]) == 1
    assert (await whole.caller.delete(whole.at("n1", f"/tasks/{task}"))).status_code == 204
    assert (await whole.get(f"/tasks/{task}")).status_code == 404
    await whole.send("b")
    agent = await whole.houses["n2"].backend.agent(0)
    assert (await whole.caller.delete(whole.at("n1", f"/sessions/{agent.ref.session}"))).status_code == 202
    await agent.closed()


async def test_an_id_that_may_be_on_a_silent_node_is_not_called_unknown(street):
    answer = await street.get("/tasks/task-1")
    assert (answer.status_code, "n3" in answer.json()["detail"]) == (503, True)


async def test_what_needs_one_count_over_all_members_is_refused_in_a_sentence(street):
    events = await street.get("/events")
    assert (events.status_code, "/v1/groups/{folder}/events" in events.json()["detail"]) == (409, True)
    retry = await street.caller.post(street.at("n1", "/outbox/1/retry"), json={})
    assert (retry.status_code, "?group=" in retry.json()["detail"]) == (409, True)
    assert (await street.caller.post(street.at("n1", "/outbox/1/retry?group=b"), json={})).status_code == 404


async def test_files_go_through_in_both_directions_however_large_they_are(whole):
    content = b"x" * 3_000_000
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("big.txt")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    async def pieces():
        archive.seek(0)
        while piece := archive.read(65536):
            yield piece

    address = whole.at("n1", "/transfer/groups/b/group/files")
    taken = await whole.caller.put(address, content=pieces(), headers={"Content-Type": "application/x-tar"})
    assert taken.status_code == 200, taken.text
    assert (whole.houses["n2"].tmp_path / "groups/b/big.txt").stat().st_size == len(content)
    given = await whole.get("/transfer/groups/b/group/files.tar")
    with tarfile.open(fileobj=io.BytesIO(given.content)) as tar:
        member = tar.extractfile(next(name for name in tar.getnames() if name.endswith("big.txt")))
        assert member.read() == content


async def test_a_body_that_is_too_large_is_refused_on_its_way(street):
    async def endless():
        for _ in range(40):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    answer = await street.caller.post(street.at("n1", "/groups/b/messages"), content=endless(), headers=headers)
    assert answer.status_code == 413


# Messages that are with the wrong member


def handover(street, node):
    return Handover(street.houses[node].store, street.http, lambda: TOKEN, Neighbour(street, node).place, node)


async def test_a_message_that_waits_with_the_wrong_member_is_handed_over_in_its_order_and_once(whole):
    first, second = whole.houses["n1"], whole.houses["n2"]
    for text in ("one", "two"):
        await first.commit(text, "b", client_id=f"tg:1/{text}")
    await unnoted(whole, "n1")
    await handover(whole, "n1").look()
    assert await first.store.waiting("b") == []
    await second.backend.agent(0)
    assert [message.content for message in await second.controller.history("b")] == ["one", "two"]
    await first.commit("one", "b", client_id="tg:1/one")  # the network brings the same again
    await handover(whole, "n1").look()
    assert len(await second.controller.history("b")) == 2


async def test_a_message_without_an_id_is_handed_over_once_as_well(whole):
    await whole.houses["n1"].commit("hello", "b")
    await unnoted(whole, "n1")
    await handover(whole, "n1").look()
    assert len(await whole.houses["n2"].controller.history("b")) == 1


async def test_what_is_left_of_a_groups_messages_stays_when_the_group_comes_back_meanwhile(whole):
    first = whole.houses["n1"]
    for text in ("one", "two"):
        await first.commit(text, "b")
    looks = [Neighbour(whole, "n1").place("b")] * 2  # then it is ours
    place = lambda _: looks.pop() if looks else None  # noqa: E731
    await Handover(first.store, whole.http, lambda: TOKEN, place, "n1").look()
    assert [message.content for message in await first.store.waiting("b")] == ["two"]


async def unnoted(street, node):
    """The other member takes the first message, and that cannot be noted."""
    async with street.houses[node].refusing("UPDATE ON messages", "new.state = 'done'"):
        with pytest.raises(StoreFailed):
            await handover(street, node).look()


async def test_a_message_that_comes_back_with_its_group_waits_here_again(whole):
    """As when two nodes are drained one after the other, faster than the queue of the second one moves."""
    first, second = whole.houses["n1"], whole.houses["n2"]
    await first.commit("hello", "a", client_id="tg:1/1")
    whole.where["a"] = "n2"
    await second.host.groups.declare(Groups(groups=[*second.groups.groups, first.groups.groups[1]]))
    second.backend.room.clear()  # it gets no agent there
    await handover(whole, "n1").look()
    assert [message.content for message in await second.controller.history("a")] == ["hello"]
    whole.where["a"] = "n1"
    await second.host.groups.declare(second.groups)
    await second.execute("UPDATE messages SET state = 'waiting', session = NULL, turn = NULL")
    await handover(whole, "n2").look()
    assert await second.store.waiting("a") == []
    assert {message.state for message in await first.controller.history("a")} != {MessageState.DONE}
    agent = await first.backend.agent(0)
    assert "hello" in agent.stdin["prompt"]


async def test_a_node_that_begins_anew_gives_no_message_the_id_of_an_older_one(whole):
    """Its disk was replaced, and the numbers of its messages begin again."""
    first, second = whole.houses["n1"], whole.houses["n2"]
    await first.commit("hello", "b")
    await handover(whole, "n1").look()
    await first.execute("DELETE FROM messages")
    await first.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    message = await first.commit("and again", "b")
    assert message.id == 1
    await handover(whole, "n1").look()
    assert [message.content for message in await second.controller.history("b")] == ["hello", "and again"]


class Alive:
    """Presence of a member that everybody sees."""

    told = believed = True

    def peers(self):
        return {"n2": Peer("n2", "127.0.0.1:1", 1.0)}


def edition(node, version):
    """The record with the one group `a`."""
    assigned = Assigned(node=node, since=datetime.now(UTC), generation=1)
    return Edition(Assignments(groups={"a": assigned}), version)


async def brought(*found):
    """What a watch brings, until it ends."""
    for each in found:
        yield each


def declared(**more):
    return brought(Groups(groups=[GroupSpec(folder="a", name="a", **more)]))


async def test_what_the_watch_brings_while_the_record_is_read_is_not_taken_back(tmp_path):
    answers = [edition("n1", 1), edition("n2", 2)]

    async def look():
        await membership.follow_record(brought(edition("n2", 2)))
        return answers.pop(0)

    membership = Membership("n1", NodelocalSettings(), Alive(), Holdings(tmp_path), look)
    await membership.follow_groups(declared())
    await membership.follow_record(brought(edition("n1", 1)))
    async with contextlib.aclosing(membership.own()) as own:
        assert (await anext(own)).groups == ()
    assert membership.place("a").node == "n2"


async def test_what_the_watch_brings_late_does_not_take_up_a_group_that_went_meanwhile(tmp_path):
    """The API server was away, the record was read behind that, and the watch comes back after it."""

    async def as_it_is():
        return edition("n2", 3)

    membership = Membership("n1", NodelocalSettings(), Alive(), Holdings(tmp_path), as_it_is)
    await membership.follow_groups(declared(ephemeral=True))
    await membership.follow_record(brought(edition("n1", 1)))
    async with contextlib.aclosing(membership.own()) as own:
        assert (await anext(own)).groups == ()
        await membership.follow_record(brought(edition("n1", 2)))
        assert membership.place("a").node == "n2"


async def test_a_record_of_a_cluster_that_was_set_back_is_believed(tmp_path):
    """Its versions begin again where the copy was made."""
    as_it_is = edition("n1", 30)

    async def look():
        return as_it_is

    membership = Membership("n1", NodelocalSettings(), Alive(), Holdings(tmp_path), look)
    await membership.follow_groups(declared(ephemeral=True))
    await membership.follow_record(brought(as_it_is))
    async with contextlib.aclosing(membership.own()) as own:
        assert [group.folder for group in (await anext(own)).groups] == ["a"]
        as_it_is = edition("n2", 4)
        await membership.follow_record(brought(as_it_is))
        assert (await anext(own)).groups == ()
        await membership.follow_record(brought(edition("n1", 5)))
        assert [group.folder for group in (await anext(own)).groups] == ["a"]


async def test_a_message_is_not_handed_over_while_a_session_may_still_begin_with_it_here(tmp_path):
    async def as_it_is():
        return edition("n1", 1)

    membership = Membership("n1", NodelocalSettings(), Alive(), Holdings(tmp_path), as_it_is)
    await membership.follow_groups(declared())
    await membership.follow_record(brought(edition("n1", 1)))
    async with contextlib.aclosing(membership.own()) as own:
        await anext(own)
        taking_up = asyncio.create_task(anext(own))
        await membership.follow_record(brought(edition("n2", 2)))
        assert (await taking_up).groups == ()  # and the host has not put it down yet
        assert (membership.place("a").node, membership.left("a")) == ("n2", None)
        waiting = asyncio.create_task(anext(own))
        await asyncio.sleep(0)
        assert membership.left("a").node == "n2"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("ticks", range(6))
async def test_a_member_can_be_ended_at_the_very_moment_at_which_its_groups_change(tmp_path, ticks):
    async def as_it_is():
        return Edition(Assignments())

    membership = Membership("n1", NodelocalSettings(), Alive(), Holdings(tmp_path), as_it_is)
    waiting = asyncio.create_task(anext(membership.own()))
    await asyncio.sleep(0.05)
    await membership.follow_groups(declared())
    for _ in range(ticks):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=10)
    assert waiting.cancelled()


async def test_a_message_for_a_node_that_is_gone_waits_for_it(street):
    await street.houses["n1"].commit("hello", "lost")
    await handover(street, "n1").look()
    assert len(await street.houses["n1"].store.waiting("lost")) == 1


# What the command line makes of it


async def test_events_of_all_groups_are_followed_group_by_group(whole):
    async with await Remote.connect(Target(url=whole.at("n1", "").removesuffix("/v1"), token=TOKEN)) as remote:
        async with contextlib.aclosing(remote.events(None, after=None)) as events:
            seen = asyncio.create_task(first_messages(events, {"a", "b"}))
            while not seen.done():  # a stream is new at a moment nobody tells
                await whole.send("a")
                await whole.send("b")
                await asyncio.wait({seen}, timeout=0.2)
            assert await seen == {"a", "b"}
        with pytest.raises(CommandFailed, match="name a group"):
            await anext(remote.events(None, after=3))


async def first_messages(events, wanted):
    seen = set()
    async for event in events:
        seen |= {event.group} if event.type is EventType.MESSAGE else set()
        if seen >= wanted:
            break
    return seen


async def test_the_table_of_groups_shows_their_nodes_and_who_is_missing(street):
    async with await Remote.connect(Target(url=street.at("n1", "").removesuffix("/v1"), token=TOKEN)) as remote:
        listed = await remote.group_list()
    assert {group.folder: group.node for group in listed.groups} == {"a": "n1", "b": "n2", "main": "n1"}
    assert [each.node for each in listed.missing] == ["n3"]
    assert "node" in [column.header for column in render.groups(listed.groups, datetime.now(UTC)).columns]
