"""Why there is no preview, from what the engine said, without its noise and with the remedy where we know it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from nanoclaw_infra.preview.document import Diagnostic

PROTECTED: Final = "protect"
"""In every sentence of the engine about protected resources."""

_EMPTY: Final = re.compile(r"^(update|preview) failed$|^an unhandled error occurred: program exited with non-zero")
# Says only that something else was said.
_URN: Final = re.compile(
    r"urn:pulumi:[^\s\"'`]*::(?:[^\s\"'`:$]*:)*(?:[^\s\"'`]*[:$])?(?P<kind>\w+)::(?P<name>[^\s\"'`]+)"
)
_DIFF: Final = re.compile(r"\n@@ .*", re.DOTALL)
# Of the API's Go structures; the fields are in the comment anyway.
_UNPROTECT: Final = re.compile(r"\. To unprotect the resource, .*", re.DOTALL)
# Its second half deletes what the first half protected; our own remedy is below.

_REMEDIES: Final = {
    "is immutable after creation": "Kubernetes does not change storage class, access modes or volume of a claim that "
    "exists, and grows only one that is bound. Data moves to another class by a new claim and a copy; put the old "
    "value back in the stack, or let somebody delete the claim on purpose.",
    "can not be less than": "A claim cannot shrink; put the old size back in the stack.",
    PROTECTED: "The stack protects this data, so the engine refuses and nothing happens to it. To keep the data of a "
    "group that goes, name its folder in `storage.keep`. To lose it, put back what was removed, name the objects in "
    "`allowDataLoss`, deploy that, and remove it then.",
    "the stack is currently locked": "Another run works on this stack; start this one again when it has ended.",
    "incorrect passphrase": "PULUMI_CONFIG_PASSPHRASE is not the one of this stack.",
    "Kubernetes cluster is unreachable": "The cluster did not answer: look at the kubeconfig and its context.",
}
# By a piece of what the engine says.


def sentences(diagnostics: Iterable[Diagnostic]) -> list[str]:
    """Each error once, as the engine said it, with kinds and names instead of URNs."""
    told = list(dict.fromkeys(_plain(each.message) for each in diagnostics if each.severity == "error"))
    return [text for text in told if not _EMPTY.match(text)] or told


def remedies(told: Iterable[str]) -> list[str]:
    """What to do about them, each once."""
    return [remedy for sign, remedy in _REMEDIES.items() if any(sign in text for text in told)]


def _plain(message: str) -> str:
    text = message.strip().removeprefix("error: ").removeprefix("Preview failed: ")
    text = _UNPROTECT.sub("", _DIFF.sub("", text))
    return _URN.sub(lambda found: f"{found['kind']}/{found['name']}", text).strip()
