"""What nobody may read in a comment, taken out of a document before anything else looks at it.

Secrets are known by their place (Secrets, the stack's credentials, the engine's marker), by the name of
their field, and by their looks. A hidden value keeps a number, so that a change can still be seen; and
what was found in one place is hidden wherever else it turns up.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

HIDDEN: Final = "[secret]"
"""How the engine, and the comment, show a secret."""

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
# The key by which the engine marks a secret in JSON.
_PLACES: Final = frozenset({"nanoclaw:credentials", "nanoclaw:apiToken"})
_SECRET_DATA: Final = frozenset({"data", "stringData"})
_SHORTEST: Final = 6
# Characters; hiding every occurrence of something shorter would hide ordinary words.

_TELLING: Final = re.compile(r"(?i)(token|passw(or)?d|secret|credentials?|(api|private|secret|access)[_-]?key)$")
_INNOCENT: Final = frozenset({"existingSecret", "imagePullSecret"})
# Names of Secrets, which a reviewer should see.
_LOOKS: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # a login in an address
    r"|\bsk-[\w-]{8,}|\b\d{6,12}:[\w-]{30,}|\bgh[pousr]_\w{16,}|\bglpat-[\w-]{16,}"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+",
    re.DOTALL,
)
_NUMBERED: Final = re.compile(r"\[secret \d+\]")


class Secrecy:
    """The secrets of one document."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._known: re.Pattern[str] | None = None

    def without_secrets(self, tree: Any) -> Any:
        """`tree` with every secret replaced by a mark that is the same for the same secret."""
        hidden = self._hide(tree)
        known = sorted((re.escape(text) for text in self._numbers if len(text) >= _SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(known)) if known else None
        return hidden

    def clean(self, text: str) -> str:
        """`text` as it may be shown; for text of whatever origin."""
        text = _LOOKS.sub(HIDDEN, text)
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _NUMBERED.sub(HIDDEN, text)

    def _hide(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._hide(each) for each in node]
        if isinstance(node, str):
            return self._hide_in_text(node)
        if not isinstance(node, dict):
            return node
        if _SIGNATURE in node:
            plain = {key: value for key, value in node.items() if key in {"value", "plaintext"}}
            return self._secret(plain) if plain else HIDDEN
        return {key: self._hide_field(node, key, value) for key, value in node.items()}

    def _hide_field(self, holder: dict[str, Any], key: str, value: Any) -> Any:
        if key in _PLACES or (key in _SECRET_DATA and holder.get("kind") == "Secret"):
            return self._secret_map(value)
        named = holder.get("name") if key == "value" else key  # a variable of a container has its name beside it
        if isinstance(value, str) and isinstance(named, str) and named not in _INNOCENT and _TELLING.search(named):
            return self._secret(value)
        return self._hide(value)

    def _hide_in_text(self, text: str) -> str:
        inner = embedded(text)
        if inner is None:
            return text
        hidden = self._hide(inner)
        return text if hidden == inner else json.dumps(hidden)

    def _secret_map(self, value: Any) -> Any:
        """A map of secrets: its keys may be seen."""
        if isinstance(value, str):
            value = inner if isinstance(inner := embedded(value), dict) else value
        if isinstance(value, dict) and _SIGNATURE not in value:
            return {key: self._secret(each) for key, each in value.items()}
        return self._secret(value)

    def _secret(self, value: Any) -> str:
        for text in _texts(value):
            self._learn(text)
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return HIDDEN if HIDDEN in text else f"[secret {self._learn(text)}]"

    def _learn(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self._numbers) + 1)
        for plain in (text, text.strip(), _decoded(text), _decoded(text).strip()):
            for form in (plain, _encoded(plain), _quoted(plain), _quoted(plain, ascii_only=True)):
                self._numbers.setdefault(form, number)
        return number


def embedded(text: str) -> Any:
    """The JSON object or list that `text` is, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        inner = embedded(value)
        return [value] if inner is None else [value, *_texts(inner)]
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [str(value)] if isinstance(value, (int, float)) else []


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode(errors="surrogatepass")).decode()


def _quoted(text: str, *, ascii_only: bool = False) -> str:
    """As it stands inside a JSON document."""
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _decoded(text: str) -> str:
    """What is behind the data of a Secret; nothing where it is no text."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
