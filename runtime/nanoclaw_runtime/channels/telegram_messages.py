"""What a Telegram message is to us: who wrote which text where, and whether it is for the assistant.

As NanoClaw's Telegram skill has it. A topic of a group is the group, a file is a word in brackets,
and a mention of the bot is the assistant's trigger.
"""

from __future__ import annotations

import re
from typing import Final

from telegram import Chat, Message, MessageEntity
from telegram.constants import ChatType

from nanoclaw_runtime.channels.base import ChatSeen, IncomingMessage
from nanoclaw_runtime.domain.prompt import addresses

NAME: Final = "telegram"
PREFIX: Final = "tg:"

_COMMAND: Final = re.compile(r"/chatid(?:@(?P<bot>\w+))?\s*", re.IGNORECASE)
_FILES: Final = {
    "photo": "Photo",
    "animation": "GIF",
    "video": "Video",
    "video_note": "Video message",
    "voice": "Voice message",
    "audio": "Audio",
    "document": "Document",
    "sticker": "Sticker",
    "location": "Location",
    "contact": "Contact",
    "poll": "Poll",
}
# By the message's field; the first that is there is told, since some files fill two.


def jid(chat: Chat) -> str:
    return f"{PREFIX}{chat.id}"


def chat_id(address: str) -> int | None:
    """The number behind `tg:`; None when there is none."""
    number = address.removeprefix(PREFIX)
    return int(number) if re.fullmatch(r"-?[0-9]{1,18}", number) else None


def seen(message: Message) -> ChatSeen:
    return ChatSeen(
        jid=jid(message.chat),
        at=message.date,
        name=message.chat.effective_name,
        channel=NAME,
        is_group=message.chat.type in (ChatType.GROUP, ChatType.SUPERGROUP),
    )


def asks_for_address(message: Message, bot: str) -> bool:
    """Whether it is the command `/chatid`, to this bot or to all."""
    command = _COMMAND.fullmatch(message.text or "")
    return command is not None and (command["bot"] or bot).lower() == bot.lower()


def incoming(message: Message, *, bot: str, assistant_name: str) -> IncomingMessage | None:
    """None for what is no text and no file: somebody joined, a title changed."""
    text = _text(message)
    if text is None:
        return None
    if _mentions(message, bot) and not addresses(text, assistant_name):
        text = f"@{assistant_name} {text}"
    sender, sender_name = _author(message)
    return IncomingMessage(jid(message.chat), str(message.message_id), sender, sender_name, text, message.date)


def _text(message: Message) -> str | None:
    if message.text is not None:
        return message.text
    for field, word in _FILES.items():
        if getattr(message, field):
            return " ".join(filter(None, [f"[{word}{_detail(message, field)}]", message.caption]))
    return message.caption


def _detail(message: Message, field: str) -> str:
    if field == "document" and message.document and message.document.file_name:
        return f": {message.document.file_name}"
    if field == "sticker" and message.sticker and message.sticker.emoji:
        return f" {message.sticker.emoji}"
    return ""


def _mentions(message: Message, bot: str) -> bool:
    named: dict[MessageEntity, str] = {}
    if message.text:
        named = message.parse_entities([MessageEntity.MENTION])
    elif message.caption:
        named = message.parse_caption_entities([MessageEntity.MENTION])
    return f"@{bot}".lower() in (name.lower() for name in named.values())


def _author(message: Message) -> tuple[str, str]:
    """Whoever writes in the name of a group or channel is that one."""
    if message.sender_chat is not None:
        return str(message.sender_chat.id), message.sender_chat.effective_name or str(message.sender_chat.id)
    user = message.from_user
    return (str(user.id), user.full_name) if user is not None else (str(message.chat.id), "unknown")
