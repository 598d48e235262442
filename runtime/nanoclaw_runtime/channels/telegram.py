"""Telegram, over the Bot API's long polling: no address of ours has to be reachable from outside.

An update is acknowledged by asking for the one behind it, and that is asked only when it is
committed: a process that dies in between gets it again, and its id keeps it single. The library's
own logs are off, because they would show the token and people's messages.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Final

os.environ.setdefault("PTB_TIMEDELTA", "true")  # the library's coming way to tell durations; it warns without

import structlog
from telegram import Bot, Update
from telegram.constants import ChatAction, MessageLimit, UpdateType
from telegram.error import BadRequest, ChatMigrated, Conflict, Forbidden, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from nanoclaw_runtime.channels import telegram_messages as messages
from nanoclaw_runtime.channels.base import ChannelFailed, ChannelRefused, Inbound
from nanoclaw_runtime.channels.parts import parts
from nanoclaw_runtime.contract import wire
from nanoclaw_runtime.contract.config import TelegramSettings
from nanoclaw_runtime.domain.errors import NanoclawError

TURN: Final = 1.0
# Seconds between two looks whether it is our turn to ask.
POLL: Final = 50
# Seconds Telegram keeps a question for updates open when there are none.
ANSWER: Final = 30.0
# Seconds for an answer. Long, because a text whose answer we do not wait for is sent twice.
CONNECT: Final = 10.0
CONNECTIONS: Final = 32
LAST_WORDS: Final = 10.0
# Seconds in which what is being sent may still be answered when the channel is closed.
LONGEST_PAUSE: Final = 60.0
# Seconds between two tries to reach a network that does not answer.
SLOWLY: Final = 60.0
# Seconds between two tries of what only a person can mend.

_log = structlog.get_logger(__name__)


class Telegram:
    """`channels.base.Channel` for one bot. `token` is asked for each connection, so a rotated one is found."""

    name = messages.NAME

    def __init__(
        self,
        settings: TelegramSettings,
        token: Callable[[], str | None],
        *,
        assistant_name: str,
        turn: Callable[[], bool] = lambda: True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`turn` tells whether we are to ask for what comes in; what goes out we send in any case."""
        self._url = settings.api_url.rstrip("/")
        self._token = token
        self._assistant_name = assistant_name
        self._turn = turn
        self._sleep = sleep
        self._secret = ""
        self._bot: Bot | None = None
        self._offset: int | None = None
        self._trouble: str | None = "not connected yet"
        self._failures = 0
        self._sending = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        for library in ("telegram", "httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)

    @property
    def connected(self) -> bool:
        return self._trouble is None

    def owns(self, jid: str) -> bool:
        return jid.startswith(messages.PREFIX)

    async def run(self, inbound: Inbound) -> None:
        while True:
            try:
                async with self._opened() as bot:
                    await self._poll(bot, inbound)
            except Exception as error:  # noqa: BLE001 - whatever a network does, it must not end the controller
                await self._rest(error)

    def parts(self, text: str, *, sender: str | None = None) -> Sequence[str]:
        return parts(f"{sender}: {text}" if sender else text, MessageLimit.MAX_TEXT_LENGTH)

    async def send(self, jid: str, part: str) -> None:
        chat = messages.chat_id(jid)
        if chat is None:
            raise ChannelRefused(f"{jid!r} is no Telegram chat; one has a number behind {messages.PREFIX!r}")
        if self._bot is None:
            raise ChannelFailed(self._trouble or "Telegram is not connected")
        with self._under_way():
            try:
                await self._bot.send_message(chat, part)
            except TelegramError as error:
                raise _not_sent(jid, error, self._told(error)) from None  # the library's text may hold the token

    async def typing(self, jid: str, *, on: bool) -> None:
        chat = messages.chat_id(jid)
        if self._bot is None or chat is None or not on:  # Telegram forgets it by itself
            return
        with self._under_way():
            try:
                await self._bot.send_chat_action(chat, ChatAction.TYPING)
            except TelegramError as error:
                _log.debug("typing not shown", channel=self.name, jid=jid, reason=self._told(error))

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Bot]:
        self._secret = self._token() or ""
        bot = Bot(
            self._secret,
            base_url=f"{self._url}/bot",
            request=HTTPXRequest(CONNECTIONS, read_timeout=ANSWER, connect_timeout=CONNECT),
            get_updates_request=HTTPXRequest(read_timeout=ANSWER, connect_timeout=CONNECT),
        )
        async with bot:
            self._bot = bot
            try:
                yield bot
            finally:
                self._bot = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS):
                        await self._quiet.wait()

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """The connection is not closed under what happens in here."""
        self._sending += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._sending -= 1
            if not self._sending:
                self._quiet.set()

    async def _poll(self, bot: Bot, inbound: Inbound) -> None:
        """Bring in what comes. Raises InvalidToken, anything else is waited out here: sending goes on meanwhile."""
        while True:
            if not self._turn():
                self._well(bot)
                await self._sleep(TURN)
                continue
            try:
                patience = 0 if self._trouble else POLL  # a short question tells at once that all is well again
                updates = await bot.get_updates(self._offset, timeout=patience, allowed_updates=[UpdateType.MESSAGE])
                self._well(bot)
                for update in updates:
                    await self._bring(bot, update, inbound)
                    self._offset = update.update_id + 1
            except InvalidToken:
                raise
            except (TelegramError, NanoclawError) as error:
                await self._rest(error)

    async def _bring(self, bot: Bot, update: Update, inbound: Inbound) -> None:
        message = update.message
        if message is None:
            return
        await inbound.chat(messages.seen(message))
        if messages.asks_for_address(message, bot.username):
            await self._answer(bot, message.chat.id, f"The address of this chat is {messages.jid(message.chat)}")
        elif message.migrate_to_chat_id is not None:
            _log.warning("chat moved", jid=messages.jid(message.chat), reason=_moved(message.migrate_to_chat_id))
        elif found := messages.incoming(message, bot=bot.username, assistant_name=self._assistant_name):
            await inbound.message(found)

    async def _answer(self, bot: Bot, chat: int, text: str) -> None:
        try:
            await bot.send_message(chat, text)
        except TelegramError as error:
            _log.warning("address not told", channel=self.name, reason=self._told(error))

    def _well(self, bot: Bot) -> None:
        if self._trouble is not None:
            _log.info("channel connected", channel=self.name, bot=bot.username)
        self._trouble, self._failures = None, 0

    async def _rest(self, error: Exception) -> None:
        """Tell a trouble once, and wait as long as it needs."""
        told, seconds = self._told(error), _pause(error, self._failures)
        if told != self._trouble:
            ours = not isinstance(error, (TelegramError, NanoclawError))
            _log.error("channel not connected", channel=self.name, reason=told, seconds=seconds, exc_info=ours)
        self._trouble = told
        self._failures += 1
        await self._sleep(seconds)

    def _told(self, error: Exception) -> str:
        match error:
            case InvalidToken():
                told = (
                    f"{self._url} refuses the bot's token; put the one from @BotFather under "
                    f"{wire.TELEGRAM_TOKEN_KEY} into the credentials"
                )
            case Conflict():
                told = "somebody else fetches this bot's messages; stop the other program, or remove the bot's webhook"
            case RetryAfter():
                told = f"{self._url} asks for a pause"
            case ChatMigrated():
                told = _moved(error.new_chat_id)
            case TelegramError():
                told = f"{self._url} did not do what was asked: {error.message}"
            case NanoclawError():
                told = str(error)
            case _:
                told = f"{type(error).__name__} in the controller; this line of its log has the traceback"
        return told.replace(self._secret, "…") if self._secret else told


def _not_sent(jid: str, error: TelegramError, told: str) -> ChannelFailed | ChannelRefused:
    match error:
        case RetryAfter():
            return ChannelFailed(told, retry_after=_seconds(error))
        case ChatMigrated():
            return ChannelRefused(told)
        case Forbidden() | BadRequest():
            return ChannelRefused(
                f"Telegram refuses texts for {jid}: {error.message}; see that the bot is there and may write"
            )
        case _:
            return ChannelFailed(told)


def _pause(error: Exception, failures: int) -> float:
    """Seconds until the next try."""
    match error:
        case RetryAfter():
            return _seconds(error)
        case InvalidToken() | Conflict():
            return SLOWLY
        case _:
            return min(2.0 ** min(failures, 10), LONGEST_PAUSE)


def _seconds(error: RetryAfter) -> float:
    pause = error.retry_after
    return pause.total_seconds() if isinstance(pause, timedelta) else float(pause)


def _moved(chat: int) -> str:
    return f"the chat has become {messages.PREFIX}{chat}; give its group this jid"
