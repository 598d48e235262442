"""What is told about a changed stack; the base is the committed stack `local`."""

from __future__ import annotations

from typing import Any

import pytest

from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from tests.infra.recording import VARIABLES, settings

ENVIRONMENT = VARIABLES | {"NANOCLAW_KUBECONFIG": __file__}
"""Of a machine that has what the stack asks for; any file does for a kubeconfig."""


def read(stack: str = "local", **values: Any) -> StackSettings:
    """The stack read with these keys of its file in place of its own."""
    return StackSettings.read(stack, {"settings": settings("local")} | values, ENVIRONMENT)


def told(**values: Any) -> tuple[str, ...]:
    """The sentences of the refusal."""
    with pytest.raises(StackRefused) as refused:
        read(**values)
    return refused.value.problems


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The settings with one field set, or removed when the value is None."""
    tree: dict[str, Any] = settings("local")
    at: Any = tree
    *above, last = path
    for key in above:
        at = at[key] if isinstance(key, int) else at.setdefault(key, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    return tree


def merged(tree: Any, changes: Any) -> Any:
    """`tree` with `changes` laid over it, maps into maps."""
    if isinstance(tree, dict) and isinstance(changes, dict):
        return tree | {key: merged(tree.get(key), value) for key, value in changes.items()}
    return changes
