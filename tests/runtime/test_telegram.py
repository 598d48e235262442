"""Telegram on a real server of loopback that speaks the Bot API, and on a real store."""

import asyncio
import contextlib
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.channels.base import ChannelFailed, ChannelRefused, ChatSeen, IncomingMessage
from nanoclaw_runtime.channels.configured import configured
from nanoclaw_runtime.channels.parts import parts
from nanoclaw_runtime.channels.telegram import SLOWLY, Telegram
from nanoclaw_runtime.contract.config import ChannelSettings, TelegramSettings
from nanoclaw_runtime.domain.errors import StoreFailed
from tests.support.bot_api import TOKEN, WRITTEN, BotApi


class Notebook:
    """What a channel brought in; `refuse` lets that many messages fail first."""

    def __init__(self) -> None:
        self.messages: list[IncomingMessage] = []
        self.chats: list[ChatSeen] = []
        self.refuse = 0
        self.crash_at: str | None = None
        self._changed = asyncio.Condition()

    async def message(self, message):
        if self.refuse:
            self.refuse -= 1
            raise StoreFailed("the database refused: disk full; make room")
        if message.text == self.crash_at:
            await asyncio.Event().wait()
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    async def chat(self, seen):
        async with self._changed:
            self.chats.append(seen)
            self._changed.notify_all()

    async def until(self, condition):
        async with self._changed:
            await self._changed.wait_for(condition)

    async def texts(self, count):
        await self.until(lambda: len(self.messages) >= count)
        return [message.text for message in self.messages]


class Naps:
    """How long the channel wanted to rest; it goes on when it is told to."""

    def __init__(self, *, wakes=True) -> None:
        self.seconds: list[float] = []
        self._wakes = wakes
        self._began = asyncio.Event()

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        self._began.set()
        if self._wakes:
            await asyncio.sleep(0)
        else:
            await asyncio.Event().wait()

    async def first(self):
        await self._began.wait()
        return self.seconds[0]


@pytest.fixture
async def network():
    async with BotApi() as network:
        yield network


@pytest.fixture
def inbound():
    return Notebook()


def bot(network, *, token=TOKEN, **more):
    return Telegram(TelegramSettings(api_url=network.url), lambda: token, assistant_name="Andy", **more)


@contextlib.asynccontextmanager
async def running(channel, inbound):
    life = asyncio.create_task(channel.run(inbound))
    try:
        yield channel
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@pytest.fixture
async def connected(network, inbound):
    async with running(bot(network), inbound) as channel:
        await network.until(lambda: "getUpdates" in network.calls)
        yield channel


# Coming in


async def test_a_quiet_network_is_connected(network, connected):
    await network.until(lambda: network.calls.count("getUpdates") == 2)
    assert connected.connected


async def test_a_message_is_brought_in_as_it_was_written(network, inbound, connected):
    await network.writes("hello", chat=-100, title="Family")
    await inbound.texts(1)
    written = datetime.fromtimestamp(WRITTEN, UTC)
    (message,) = inbound.messages
    assert message == IncomingMessage("tg:-100", message.id, "7", "Ann", "hello", written)
    assert inbound.chats == [ChatSeen("tg:-100", written, "Family", "telegram", is_group=True)]
    assert connected.connected


async def test_a_private_chat_has_the_name_of_its_person(network, inbound, connected):
    await network.writes("hello", name="Bea")
    await inbound.texts(1)
    (chat,) = inbound.chats
    assert (chat.jid, chat.name, chat.is_group) == ("tg:42", "Bea", False)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"text": "hey @Andy_Bot, look"}, "@Andy hey @Andy_Bot, look", id="a mention is the trigger"),
        pytest.param({"text": "@andy @andy_bot look"}, "@andy @andy_bot look", id="the trigger is not doubled"),
        pytest.param({"text": "@someone look"}, "@someone look", id="others may be mentioned"),
        pytest.param(
            {"photo": [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}], "caption": "@andy_bot why?"},
            "@Andy [Photo] @andy_bot why?",
            id="a photo with a caption",
        ),
        pytest.param(
            {"document": {"file_id": "f", "file_unique_id": "u", "file_name": "plan.pdf"}},
            "[Document: plan.pdf]",
            id="a document",
        ),
        pytest.param(
            {"voice": {"file_id": "f", "file_unique_id": "u", "duration": 3}}, "[Voice message]", id="a voice message"
        ),
        pytest.param({"location": {"latitude": 1.0, "longitude": 2.0}}, "[Location]", id="a place"),
        pytest.param({"text": "/compact please"}, "/compact please", id="a command that is not ours"),
        pytest.param({"text": "/chatid@other_bot"}, "/chatid@other_bot", id="a command of another bot"),
        pytest.param(
            {"text": "to a topic", "message_thread_id": 5, "is_topic_message": True}, "to a topic", id="topic"
        ),
    ],
)
async def test_what_was_sent_becomes_a_text(network, inbound, connected, fields, text):
    kind = "caption" if "caption" in fields else "text"
    entities = [
        {"type": "mention", "offset": fields[kind].index(word), "length": len(word)}
        for word in fields.get(kind, "").replace(",", " ").split()
        if word.startswith("@")
    ]
    names = {"text": "entities", "caption": "caption_entities"}
    await network.writes(**fields, **({names[kind]: entities} if entities else {}))
    assert await inbound.texts(1) == [text]


async def test_who_writes_in_the_name_of_a_group_is_the_group(network, inbound, connected):
    group = {"id": -100, "type": "supergroup", "title": "Family"}
    await network.writes("decided", chat=-100, title="Family", sender_chat=group)
    await inbound.texts(1)
    assert (inbound.messages[0].sender, inbound.messages[0].sender_name) == ("-100", "Family")


async def test_what_is_no_message_is_passed_over(network, inbound, connected):
    await network.writes(new_chat_title="Family")
    await network.writes("as it was meant", kind="edited_message")
    await network.writes(migrate_to_chat_id=-1005)
    await network.writes("the next one")
    assert await inbound.texts(1) == ["the next one"]


async def test_a_chat_is_told_its_address(network, inbound, connected):
    await network.writes("/chatid@andy_bot", chat=-100, title="Family")
    await network.until(lambda: network.sent)
    assert network.sent == [(-100, "The address of this chat is tg:-100")]
    assert inbound.messages == []


async def test_an_update_is_acknowledged_when_it_is_committed(network, inbound):
    inbound.crash_at = "second"
    await network.writes("first")
    await network.writes("second")
    async with running(bot(network), inbound):
        await inbound.until(lambda: len(inbound.chats) == 2)
    assert [update["message"]["text"] for update in network.waiting] == ["first", "second"]
    inbound.crash_at = None
    async with running(bot(network), inbound):
        await inbound.texts(3)
        await network.until(lambda: not network.waiting)
    first, again, second = inbound.messages
    assert first == again
    assert second.text == "second"


async def test_a_database_that_refuses_holds_updates_back_until_it_takes_them(network, inbound):
    inbound.refuse = 2
    for text in ("first", "second"):
        await network.writes(text)
    naps = Naps()
    async with running(bot(network, sleep=naps), inbound) as channel:
        assert await inbound.texts(2) == ["first", "second"]
        await network.until(lambda: not network.waiting)
        assert channel.connected
    assert naps.seconds == [1.0, 1.0]


# Trouble


async def test_a_refused_token_is_told_once_and_tried_slowly(network, inbound):
    naps = Naps()
    with structlog.testing.capture_logs() as logs:
        async with running(bot(network, token="123456:wrong", sleep=naps), inbound) as channel:
            await network.until(lambda: len(network.calls) >= 3)
            assert not channel.connected
            with pytest.raises(ChannelFailed, match="TELEGRAM_BOT_TOKEN"):
                await channel.send("tg:42", "hello")
    (told,) = [log for log in logs if log["log_level"] == "error"]
    assert "TELEGRAM_BOT_TOKEN" in told["reason"]
    assert "wrong" not in str(logs)
    assert set(naps.seconds) == {SLOWLY}


async def test_a_token_that_was_put_right_is_found(network, inbound):
    tokens = iter([None, "123456:wrong"])
    channel = Telegram(
        TelegramSettings(api_url=network.url), lambda: next(tokens, TOKEN), assistant_name="Andy", sleep=Naps()
    )
    await network.writes("hello")
    async with running(channel, inbound):
        assert await inbound.texts(1) == ["hello"]


@pytest.mark.parametrize(
    ("fail", "pause"),
    [
        pytest.param(lambda net: net.refuses("getUpdates", 409, "Conflict"), SLOWLY, id="another reader"),
        pytest.param(
            lambda net: net.refuses("getUpdates", 429, "Too Many Requests", retry_after=17), 17.0, id="too many calls"
        ),
        pytest.param(lambda net: net.refuses("getUpdates", 502, "Bad Gateway"), 1.0, id="a gateway"),
        pytest.param(lambda net: net.hangs_up("getUpdates"), 1.0, id="a lost connection"),
        pytest.param(lambda net: net.hangs_up("getMe"), 1.0, id="no connection at all"),
    ],
)
async def test_trouble_is_waited_out(network, inbound, fail, pause):
    fail(network)
    await network.writes("hello")
    naps = Naps()
    with structlog.testing.capture_logs() as logs:
        async with running(bot(network, sleep=naps), inbound) as channel:
            assert await inbound.texts(1) == ["hello"]
            assert channel.connected
    assert naps.seconds == [pause]
    assert TOKEN not in str(logs)


async def test_pauses_grow_while_nothing_works(network, inbound):
    for _ in range(8):
        network.refuses("getUpdates", 500, "Internal Server Error")
    naps = Naps()
    await network.writes("hello")
    async with running(bot(network, sleep=naps), inbound):
        await inbound.texts(1)
    assert naps.seconds == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


async def test_an_update_nobody_understands_ends_nothing_and_is_told_once(network, inbound):
    await network.happens({"update_id": 7, "message": {}})
    naps = Naps()
    with structlog.testing.capture_logs() as logs:
        async with running(bot(network, sleep=naps), inbound):
            await network.until(lambda: network.calls.count("getUpdates") >= 3)
    (told,) = [log for log in logs if log["log_level"] == "error"]
    assert told["reason"].startswith("KeyError in the controller")
    assert naps.seconds[:2] == [1.0, 2.0]


async def test_texts_go_out_while_another_reader_has_the_updates(network, inbound):
    network.refuses("getUpdates", 409, "Conflict")
    naps = Naps(wakes=False)
    async with running(bot(network, sleep=naps), inbound) as channel:
        await naps.first()
        await channel.send("tg:42", "hello")
    assert network.sent == [(42, "hello")]


async def test_the_library_keeps_its_logs_to_itself(network, inbound, caplog):
    with caplog.at_level("DEBUG"):
        network.refuses("getUpdates", 502, "Bad Gateway")
        await network.writes("secret words")
        async with running(bot(network, sleep=Naps()), inbound):
            await inbound.texts(1)
    assert TOKEN not in caplog.text
    assert "secret words" not in caplog.text


# Going out


async def test_a_text_is_sent_as_it_is(network, connected):
    await connected.send("tg:-100", "*no* <b>markup</b>")
    assert network.sent == [(-100, "*no* <b>markup</b>")]


@pytest.mark.parametrize(
    ("answer", "parameters", "told"),
    [
        pytest.param((403, "Forbidden: bot was kicked"), {}, "kicked", id="put out"),
        pytest.param((400, "Bad Request: chat not found"), {}, "Chat not found; see that the bot", id="no such chat"),
        pytest.param((400, "moved"), {"migrate_to_chat_id": -1005}, "tg:-1005; give its group this jid", id="moved"),
    ],
)
async def test_a_chat_that_is_not_there_refuses_for_good(network, connected, answer, parameters, told):
    network.refuses("sendMessage", *answer, **parameters)
    with pytest.raises(ChannelRefused, match=told):
        await connected.send("tg:42", "hello")


async def test_an_address_without_a_number_is_refused(connected):
    with pytest.raises(ChannelRefused, match="no Telegram chat"):
        await connected.send("tg:family", "hello")


async def test_too_many_texts_are_told_with_the_pause_that_is_asked_for(network, connected):
    network.refuses("sendMessage", 429, "Too Many Requests", retry_after=17)
    with pytest.raises(ChannelFailed) as failed:
        await connected.send("tg:42", "hello")
    assert failed.value.retry_after == 17.0


async def test_a_lost_connection_is_no_answer(network, connected):
    network.hangs_up("sendMessage")
    with pytest.raises(ChannelFailed) as failed:
        await connected.send("tg:42", "hello")
    assert failed.value.retry_after is None
    assert TOKEN not in str(failed.value)


async def test_nothing_is_sent_before_there_is_a_connection(network):
    with pytest.raises(ChannelFailed, match="not connected"):
        await bot(network).send("tg:42", "hello")


async def test_a_channel_that_is_closed_lets_what_is_being_sent_be_taken(network, inbound):
    going_on = network.holds("sendMessage")
    async with asyncio.TaskGroup() as tasks, running(bot(network), inbound) as channel:
        await network.until(lambda: "getUpdates" in network.calls)
        tasks.create_task(channel.send("tg:42", "hello"))
        await network.until(lambda: "sendMessage" in network.calls)
        asyncio.get_running_loop().call_soon(going_on.set)
    assert network.sent == [(42, "hello")]


async def test_a_channel_that_is_closed_leaves_no_half_made_connection_of_who_types(network, inbound):
    going_on = network.holds("sendChatAction")
    async with asyncio.TaskGroup() as tasks, running(bot(network), inbound) as channel:
        await network.until(lambda: "getUpdates" in network.calls)
        for _ in range(5):
            tasks.create_task(channel.typing("tg:42", on=True))
        await asyncio.sleep(0)  # each has begun, and none has a connection yet
        asyncio.get_running_loop().call_soon(going_on.set)
    assert network.actions == [(42, "typing")] * 5


async def test_typing_is_shown_and_never_raises(network, connected):
    await connected.typing("tg:42", on=True)
    await connected.typing("tg:42", on=False)
    network.refuses("sendChatAction", 500, "Internal Server Error")
    await connected.typing("tg:42", on=True)
    assert network.actions == [(42, "typing")]


def test_only_chats_of_telegram_are_ours(network):
    channel = bot(network)
    assert channel.owns("tg:-100")
    assert not channel.owns("http:main")


async def test_another_name_stands_before_the_first_piece(network):
    first, second = bot(network).parts("x" * 5000, sender="Researcher")
    assert first.startswith("Researcher: xxx")
    assert second.startswith("xxx")


# Pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("short", ["short"], id="it fits"),
        pytest.param("aaa bbb\n\nccc", ["aaa bbb", "ccc"], id="between paragraphs"),
        pytest.param("aaa bb\ncc ddd", ["aaa bb", "cc ddd"], id="between lines"),
        pytest.param("aaa bbb ccc", ["aaa bbb", "ccc"], id="between words"),
        pytest.param("abcdefghijklm", ["abcdefghij", "klm"], id="within a word that is too long"),
        pytest.param("🦀🦀🦀🦀🦀🦀", ["🦀🦀🦀🦀🦀", "🦀"], id="no half of a character"),
        pytest.param(" " * 25, [], id="nothing but space"),
    ],
)
def test_a_long_text_is_cut_where_a_reader_would(text, pieces):
    assert parts(text, 10) == pieces


@given(st.text(st.sampled_from("ab \n🦀é")), st.integers(2, 12))
def test_pieces_fit_and_lose_nothing_but_space(text, limit):
    pieces = parts(text, limit)
    assert all(piece.strip() and len(piece.encode("utf-16-le")) <= 2 * limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


# Configuration


def test_an_installation_without_channels_has_none():
    assert configured(ChannelSettings(), lambda key: None, assistant_name="Andy") == []


def test_telegram_reads_its_own_credential():
    asked = []
    (channel,) = configured(ChannelSettings(telegram=TelegramSettings()), asked.append, assistant_name="Andy")
    assert channel.name == "telegram"
    assert not channel.connected
    assert asked == []


def test_the_library_is_not_loaded_without_a_channel():
    script = "import sys, nanoclaw_runtime.channels.configured; sys.exit('telegram' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
