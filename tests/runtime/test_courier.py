"""The courier on a real outbox and a scripted network: order, patience, and no text lost or doubled."""

import asyncio
import contextlib
from collections import defaultdict, deque
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoclaw_runtime.channels.base import ChannelFailed, ChannelRefused
from nanoclaw_runtime.channels.parts import parts
from nanoclaw_runtime.channels.telegram import Telegram
from nanoclaw_runtime.contract.config import TelegramSettings
from nanoclaw_runtime.controller.courier import LONGEST_PAUSE, TRIES, Courier, pause
from nanoclaw_runtime.controller.presence import Typing
from nanoclaw_runtime.store.outbox import Outbox, post
from nanoclaw_runtime.store.records import EventType, PostState
from tests.support import stores
from tests.support.bot_api import TOKEN, BotApi

FULL = "CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END"
"""A database that takes no more notes, as when its disk is full."""


class Network:
    """A channel for `tg:` chats. `answers` are what the next calls for a chat come to, an Event to be waited for."""

    name = "scripted"
    connected = True

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.typed: list[tuple[str, bool]] = []
        self.answers: dict[str, deque] = defaultdict(deque)
        self._changed = asyncio.Condition()

    def owns(self, jid):
        return jid.startswith("tg:")

    def parts(self, text, *, sender=None):
        return parts(f"{sender}: {text}" if sender else text, 10)

    async def send(self, jid, part):
        await self._note(self.asked, jid)
        answer = self.answers[jid].popleft() if self.answers[jid] else None
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        elif answer is not None:
            raise answer
        await self._note(self.taken, (jid, part))

    async def typing(self, jid, *, on):
        await self._note(self.typed, (jid, on))
        if self.answers[jid]:
            raise self.answers[jid].popleft()

    async def until(self, condition):
        async with self._changed:
            await self._changed.wait_for(condition)

    async def has_taken(self, count):
        await self.until(lambda: len(self.taken) >= count)
        return self.taken

    async def _note(self, book, fact):
        async with self._changed:
            book.append(fact)
            self._changed.notify_all()


class Office:
    """An outbox, a network and a courier between them; `restart` is a crash of the process and its return."""

    def __init__(self, tmp_path):
        self._folder = tmp_path
        self.network = Network()
        self.pauses: list[tuple[int, float | None]] = []

    async def __aenter__(self):
        self.refused = asyncio.Event()
        self.store = await stores.opened(self._folder, on_error=self.refused.set)
        self.outbox = Outbox(self.store.database)
        self._life = None
        return self

    async def __aexit__(self, *_):
        await self.stop()
        await self.store.close()

    def start(self, *channels):
        courier = Courier(self.outbox, channels or [self.network], pause=self._pause, store_pause=0.001)
        self._life = asyncio.create_task(courier.run())

    async def stop(self):
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    async def crash(self):
        """The process is gone from one moment to the next, and another one opens the file."""
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("text ")]
        for task in tasks:
            task.cancel()
        await self.stop()
        await self.store.close()
        await self.__aenter__()

    async def put(self, text, jid="tg:1", folder="main", **more):
        now = datetime.now(UTC)

        def work(connection):
            return post(connection, jid, folder, text, origin=f"test:{jid}:{text}", at=now, **more)

        await self.store.database.publish(work)

    async def execute(self, sql):
        await self.store.database.transaction(lambda connection: connection.exec_driver_sql(sql))

    async def until_all(self, state):
        while {found.state for found in await self.outbox.list()} != {state}:
            await asyncio.sleep(0.002)
        return await self.outbox.list()

    def _pause(self, attempts, retry_after):
        self.pauses.append((attempts, retry_after))
        return 0.001


@pytest.fixture
async def office(tmp_path):
    async with Office(tmp_path) as office:
        yield office


async def test_a_text_is_taken_and_written_down(office):
    office.start()
    await office.put("hello")
    assert await office.network.has_taken(1) == [("tg:1", "hello")]
    (found,) = await office.until_all(PostState.SENT)
    assert found.sent is not None


async def test_what_waits_from_before_goes_first_and_in_order(office):
    for text in "abcdef":
        await office.put(text)
    office.start()
    await office.put("g")
    assert [text for _, text in await office.network.has_taken(7)] == list("abcdefg")


async def test_a_long_text_goes_in_pieces_before_the_next_text(office):
    await office.put("aaa bbb ccc ddd", sender="Bot")
    await office.put("e")
    office.start()
    await office.until_all(PostState.SENT)
    assert [text for _, text in office.network.taken] == ["Bot: aaa", "bbb ccc", "ddd", "e"]


async def test_a_chat_that_fails_holds_up_no_other(office):
    stuck = asyncio.Event()
    office.network.answers["tg:1"].append(stuck)
    await office.put("a", "tg:1")
    await office.put("b", "tg:1")
    await office.put("c", "tg:2")
    office.start()
    assert await office.network.has_taken(1) == [("tg:2", "c")]
    stuck.set()
    assert await office.network.has_taken(3) == [("tg:2", "c"), ("tg:1", "a"), ("tg:1", "b")]


async def test_a_failure_is_tried_again_with_growing_patience(office):
    office.network.answers["tg:1"] += [
        ChannelFailed("no route"),
        ChannelFailed("slow down", retry_after=17.0),
        ChannelFailed("no route"),
    ]
    await office.put("a")
    await office.put("b")
    office.start()
    await office.until_all(PostState.SENT)
    assert office.network.taken == [("tg:1", "a"), ("tg:1", "b")]
    assert office.pauses == [(0, None), (1, 17.0), (2, None)]


async def test_a_refused_text_is_given_up_at_once_and_told(office):
    office.network.answers["tg:1"].append(ChannelRefused("the bot was put out; invite it"))
    await office.put("a")
    office.start()
    (found,) = await office.until_all(PostState.FAILED)
    assert (found.error, found.attempts) == ("the bot was put out; invite it", 1)
    (event,) = await office.store.events(after=0, folder="main")
    assert event.type is EventType.FAILURE
    assert "the bot was put out; invite it" in event.payload["text"]


async def test_a_text_for_no_channel_is_given_up_with_the_remedy(office):
    await office.put("a", "wa:1")
    office.start()
    (found,) = await office.until_all(PostState.FAILED)
    assert "configure it in the stack" in found.error
    assert f"outbox retry {found.id}" in found.error


async def test_a_text_is_given_up_after_the_last_try(office):
    office.network.answers["tg:1"] += [ChannelFailed("no route")] * 2
    await office.put("a")
    await office.execute(f"UPDATE outbox SET attempts = {TRIES - 2}")
    office.start()
    (found,) = await office.until_all(PostState.FAILED)
    assert found.attempts == TRIES


async def test_a_retried_text_is_delivered(office):
    office.network.answers["tg:1"].append(ChannelRefused("the bot was put out; invite it"))
    await office.put("a")
    office.start()
    await office.until_all(PostState.FAILED)
    await office.outbox.retry(1, at=datetime.now(UTC))
    assert await office.network.has_taken(1) == [("tg:1", "a")]


async def test_a_channel_that_breaks_ends_neither_the_text_nor_the_others(office):
    office.network.answers["tg:1"].append(RuntimeError("a bug"))
    await office.put("a", "tg:1")
    await office.put("b", "tg:2")
    office.start()
    await office.until_all(PostState.SENT)
    assert sorted(office.network.taken) == [("tg:1", "a"), ("tg:2", "b")]


async def test_a_text_that_was_taken_is_not_sent_again_while_the_database_refuses(office):
    await office.put("a")
    await office.put("b")
    await office.execute(FULL)
    office.start()
    await office.refused.wait()
    await office.execute("DROP TRIGGER full")
    await office.until_all(PostState.SENT)
    assert office.network.taken == [("tg:1", "a"), ("tg:1", "b")]


async def test_a_crash_before_a_taken_text_is_written_down_sends_it_twice_rather_than_never(office):
    await office.put("a")
    await office.execute(FULL)
    office.start()
    await office.refused.wait()
    await office.crash()
    await office.execute("DROP TRIGGER full")
    office.start()
    await office.until_all(PostState.SENT)
    assert office.network.taken == [("tg:1", "a"), ("tg:1", "a")]


async def test_a_text_that_nobody_took_is_sent_after_a_crash(office):
    office.network.answers["tg:1"].append(asyncio.Event())
    await office.put("a")
    office.start()
    await office.network.until(lambda: office.network.asked)
    await office.crash()
    assert office.network.taken == []
    office.start()
    assert await office.network.has_taken(1) == [("tg:1", "a")]


async def test_pieces_that_were_taken_are_not_sent_again_after_a_crash(office):
    office.network.answers["tg:1"] += [None, asyncio.Event()]
    await office.put("aaa bbb ccc ddd")
    office.start()
    await office.network.until(lambda: len(office.network.asked) == 2)
    await office.crash()
    assert len(office.network.taken) == 1
    office.start()
    await office.until_all(PostState.SENT)
    assert [text for _, text in office.network.taken] == office.network.parts("aaa bbb ccc ddd")


async def test_a_stop_lets_what_is_under_way_be_taken_and_written_down(office):
    almost = asyncio.Event()
    office.network.answers["tg:1"].append(almost)
    await office.put("a")
    office.start()
    await office.network.until(lambda: office.network.asked)
    stopping = asyncio.create_task(office.stop())
    await asyncio.sleep(0)
    almost.set()
    await stopping
    assert office.network.taken == [("tg:1", "a")]
    assert (await office.outbox.list())[0].state is PostState.SENT


@pytest.mark.parametrize("taken", [False, True], ids=["before", "after"])
async def test_telegram_gets_a_text_whatever_happens_to_the_connection(office, taken):
    async with BotApi() as network, asyncio.TaskGroup() as tasks:
        channel = Telegram(TelegramSettings(api_url=network.url), lambda: TOKEN, assistant_name="Andy")
        life = tasks.create_task(channel.run(None))
        network.hangs_up("sendMessage", taken=taken)
        await network.until(lambda: "getUpdates" in network.calls)
        await office.put("a", "tg:42")
        await office.put("b", "tg:42")
        office.start(channel)
        await office.until_all(PostState.SENT)
        await office.stop()
        life.cancel()
        # A connection that breaks behind the taking leaves nobody able to tell: twice is better than never.
        assert network.sent == [(42, "a")] * (2 if taken else 1) + [(42, "b")]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["take", "fail", "refuse"]), max_size=8), st.integers(1, 4))
async def test_every_text_is_taken_once_or_told_whatever_the_network_does(tmp_path_factory, answers, count):
    async with Office(tmp_path_factory.mktemp("office")) as office:
        errors = {"take": None, "fail": ChannelFailed("no route"), "refuse": ChannelRefused("put out")}
        office.network.answers["tg:1"] += [errors[answer] for answer in answers]
        for number in range(count):
            await office.put(f"{number}")
        office.start()
        while any(found.state is PostState.WAITING for found in await office.outbox.list()):
            await asyncio.sleep(0.001)
        sent = [found.text for found in await office.outbox.list(state=PostState.SENT)]
        assert [text for _, text in office.network.taken] == sent


@pytest.mark.parametrize(
    ("attempts", "retry_after", "seconds"),
    [(0, None, 1), (1, None, 2), (8, None, 256), (9, None, 300), (10_000, None, 300), (0, 17.0, 17), (9, 17.0, 300)],
)
def test_pauses_double_up_to_five_minutes(attempts, retry_after, seconds):
    assert pause(attempts, retry_after) == seconds


def test_all_tries_together_are_a_day():
    tried_for = sum(pause(attempts) for attempts in range(TRIES - 1))
    assert 0 <= 86_400 - tried_for < LONGEST_PAUSE


# Typing


@contextlib.asynccontextmanager
async def showing(network):
    typing = Typing([network], repeat=0.001)
    life = asyncio.create_task(typing.run())
    await asyncio.sleep(0)
    try:
        yield typing
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def test_typing_is_shown_again_and_again_until_it_is_over():
    network = Network()
    async with showing(network) as typing:
        typing.set("tg:1", on=True)
        typing.set("tg:1", on=True)
        await network.until(lambda: network.typed.count(("tg:1", True)) >= 3)
        typing.set("tg:1", on=False)
        await network.until(lambda: ("tg:1", False) in network.typed)
        assert network.typed[-1] == ("tg:1", False)


async def test_typing_never_raises():
    network = Network()
    network.answers["tg:1"].append(RuntimeError("a bug"))
    Typing([network]).set("tg:1", on=True)
    async with showing(network) as typing:
        typing.set("http:main", on=True)
        typing.set("tg:2", on=False)
        typing.set("tg:1", on=True)
        await network.until(lambda: len(network.typed) >= 2)
    assert set(network.typed) == {("tg:1", True)}
    typing.set("tg:1", on=True)
