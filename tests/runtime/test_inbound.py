"""What channels bring in becomes messages of groups, on a real store."""

from datetime import UTC, datetime

import pytest

from nanoclaw_runtime.channels.base import ChatSeen, IncomingMessage
from nanoclaw_runtime.controller.inbound import ChannelInbound
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.records import Chat
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path):
    store = await stores.opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def folders():
    return {"tg:1": "family"}


@pytest.fixture
def inbound(store, folders):
    return ChannelInbound(store.add_message, folders.get, ChatBook(store.database), assistant_name="Andy")


def message(text, jid="tg:1", number="5"):
    return IncomingMessage(jid, number, "7", "Ann", text, NOW)


async def texts(store, folder="family"):
    return [found.content for found in await store.history(folder)]


async def test_a_text_of_a_groups_chat_becomes_its_message(inbound, store):
    await inbound.message(message("@Andy hello"))
    (found,) = await store.history("family")
    assert (found.content, found.sender, found.sender_name, found.created) == ("@Andy hello", "7", "Ann", NOW)


async def test_a_text_that_comes_again_is_one_message(inbound, store):
    await inbound.message(message("hello"))
    await inbound.message(message("hello"))
    await inbound.message(message("hello", number="6"))
    assert await texts(store) == ["hello", "hello"]


async def test_a_group_that_moved_to_another_chat_takes_its_messages(inbound, store, folders):
    await inbound.message(message("before"))
    folders["tg:-1001"] = folders.pop("tg:1")
    await inbound.message(message("after", jid="tg:-1001"))
    assert await texts(store) == ["before", "after"]


@pytest.mark.parametrize(
    "incoming",
    [
        pytest.param(message("hello", jid="tg:2"), id="a chat of nobody"),
        pytest.param(message(" \n"), id="blank"),
        pytest.param(message("Andy: hello"), id="the assistant's own"),
    ],
)
async def test_what_is_not_for_an_agent_is_not_stored(inbound, store, incoming):
    await inbound.message(incoming)
    assert await texts(store) == []


async def test_half_a_character_does_not_stop_the_others(inbound, store):
    await inbound.message(message("a\ud83e"))
    await inbound.message(message("\ud83e\udd80", number="6"))
    assert await texts(store) == ["a�", "🦀"]


async def test_a_chat_is_known_whether_it_is_somebodys_or_not(inbound, store):
    await inbound.chat(ChatSeen("tg:2", NOW, "Te\ud83eam", "telegram", is_group=True))
    assert await ChatBook(store.database).list() == [Chat("tg:2", "Te�am", "telegram", True, NOW)]
