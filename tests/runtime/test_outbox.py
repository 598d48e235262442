"""The outbox and the chats on a real SQLite file: which text is due, and what becomes of it."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.outbox import Outbox, post
from nanoclaw_runtime.store.records import Chat, EventType, PostState
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


@pytest.fixture
async def store(tmp_path):
    store = await stores.opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def outbox(store):
    return Outbox(store.database)


async def put(outbox, text, jid="tg:1", folder="main", origin=None, **more):
    def work(connection):
        return post(connection, jid, folder, text, origin=origin or f"test:{jid}:{text}", at=NOW, **more)

    return await outbox.database.publish(work)


async def due(outbox, now=NOW, limit=10):
    return [(found.jid, found.text) for found in await outbox.due(now, limit)]


async def test_of_each_chat_the_oldest_text_is_due(outbox):
    for jid, text in (("tg:1", "a"), ("tg:1", "b"), ("tg:2", "c"), ("tg:1", "d")):
        await put(outbox, text, jid)
    assert await due(outbox) == [("tg:1", "a"), ("tg:2", "c")]
    assert await due(outbox, limit=1) == [("tg:1", "a")]
    await outbox.sent(1, at=NOW)
    assert await due(outbox) == [("tg:1", "b"), ("tg:2", "c")]


async def test_a_text_is_posted_once_for_what_it_was_made_from(outbox):
    assert await put(outbox, "a", origin="output:s1:0")
    assert not await put(outbox, "a", origin="output:s1:0")
    assert await due(outbox) == [("tg:1", "a")]


async def test_a_text_that_waits_holds_up_its_own_chat_only(outbox):
    for jid, text in (("tg:1", "a"), ("tg:1", "b"), ("tg:2", "c")):
        await put(outbox, text, jid)
    await outbox.again(1, LATER, "no route")
    assert await due(outbox) == [("tg:2", "c")]
    assert await outbox.next_due(NOW) == LATER
    assert await due(outbox, LATER) == [("tg:1", "a"), ("tg:2", "c")]
    (first,) = await outbox.list(limit=1)
    assert (first.attempts, first.error, first.state) == (1, "no route", PostState.WAITING)


async def test_nothing_is_due_when_nothing_waits(outbox):
    assert await outbox.due(NOW, 10) == []
    assert await outbox.next_due(NOW) is None
    await put(outbox, "a")
    assert await outbox.next_due(NOW) is None


async def test_a_piece_that_was_taken_counts_and_forgives_the_failures_before(outbox):
    await put(outbox, "long")
    await outbox.again(1, NOW, "no route")
    await outbox.part_sent(1)
    (found,) = await outbox.due(NOW, 10)
    assert (found.parts, found.attempts, found.error) == (1, 0, None)


async def test_a_text_that_is_given_up_lets_the_next_one_go_and_is_told(store, outbox):
    await put(outbox, "a")
    await put(outbox, "b")
    await outbox.failed(1, "the bot was put out", at=LATER)
    assert await due(outbox) == [("tg:1", "b")]
    (event,) = await store.events(after=0, folder="main")
    assert event.type is EventType.FAILURE
    assert event.payload == {
        "messages": [],
        "text": "A message could not be delivered to tg:1: the bot was put out",
        "post": 1,
    }


async def test_a_retried_text_goes_first_again_as_if_new(outbox):
    await put(outbox, "a")
    await put(outbox, "b")
    await outbox.failed(1, "the bot was put out", at=NOW)
    found = await outbox.retry(1, at=LATER)
    assert (found.state, found.attempts, found.next_attempt) == (PostState.WAITING, 0, LATER)
    assert await due(outbox, LATER) == [("tg:1", "a")]


async def test_what_was_sent_or_never_was_is_not_sent_by_a_retry(outbox):
    await put(outbox, "a")
    await outbox.sent(1, at=LATER)
    found = await outbox.retry(1, at=LATER)
    assert (found.state, found.sent) == (PostState.SENT, LATER)
    assert await due(outbox, LATER) == []
    assert await outbox.retry(2, at=LATER) is None


async def test_a_retry_wakes_whoever_waits_for_texts(outbox):
    await put(outbox, "a")
    added = outbox.database.added
    await outbox.retry(1, at=NOW)
    assert added.is_set()


async def test_texts_are_listed_by_chat_group_state_and_portion(outbox):
    await put(outbox, "a", "tg:1", "main")
    await put(outbox, "b", "tg:2", "team", sender="Researcher")
    await put(outbox, "c", "tg:1", "team")
    await outbox.sent(1, at=NOW)

    async def listed(**wanted):
        return [found.text for found in await outbox.list(**wanted)]

    assert await listed() == ["a", "b", "c"]
    assert await listed(jid="tg:1") == ["a", "c"]
    assert await listed(folder="team") == ["b", "c"]
    assert await listed(state=PostState.SENT) == ["a"]
    assert await listed(folder="team", state=PostState.WAITING, after=2) == ["c"]
    assert await listed(limit=1) == ["a"]
    assert (await outbox.list(after=1, limit=1))[0].sender == "Researcher"


# Chats


def chat(jid="tg:1", name="Family", at=NOW, **more):
    return Chat(**{"jid": jid, "name": name, "channel": "telegram", "is_group": True, "last_activity": at} | more)


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        pytest.param(chat(name="Our family", at=LATER), chat(name="Our family", at=LATER), id="a newer name"),
        pytest.param(chat(name=None, at=LATER), chat(at=LATER), id="no name"),
        pytest.param(chat(name="Old", at=NOW - timedelta(hours=1)), chat(), id="what was told late"),
        pytest.param(chat(channel=None, at=LATER), chat(at=LATER), id="no channel"),
    ],
)
async def test_the_newest_word_about_a_chat_is_kept(store, then, kept):
    book = ChatBook(store.database)
    await book.seen(chat())
    await book.seen(then)
    assert await book.list() == [kept]


async def test_chats_are_listed_with_the_newest_activity_first(store):
    book = ChatBook(store.database)
    for jid, at in (("tg:1", NOW), ("tg:2", LATER), ("tg:3", NOW)):
        await book.seen(chat(jid, at=at, is_group=False))
    assert [found.jid for found in await book.list()] == ["tg:2", "tg:1", "tg:3"]


async def test_a_name_without_end_is_cut(store):
    book = ChatBook(store.database)
    await book.seen(chat(name="x" * 5000))
    assert len((await book.list())[0].name) == 200


async def test_activity_never_goes_back(store):
    book = ChatBook(store.database)
    moments = [NOW + timedelta(minutes=minutes) for minutes in range(4)]
    orders = list(enumerate(permutations(moments)))
    for number, order in orders:
        for at in order:
            await book.seen(chat(f"tg:{number}", at=at))
    assert {(found.jid, found.last_activity) for found in await book.list()} == {
        (f"tg:{number}", moments[-1]) for number, _ in orders
    }
