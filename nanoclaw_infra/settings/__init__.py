"""What a stack file may say, checked before the first resource is declared.

The only reader of `pulumi.Config` and of the environment. One model a part of the platform, joined
in `stack`; what can never work together is in `rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from nanoclaw_infra.settings.secrets import StackSecrets
from nanoclaw_infra.settings.stack import StackSettings


@dataclass(frozen=True)
class Stack:
    """One environment, read and checked."""

    name: str
    settings: StackSettings
    secrets: StackSecrets


def load_stack(environ: Mapping[str, str]) -> Stack:
    """The stack the engine runs the program for. Raises StackRefused with everything that is wrong with it."""
    name, config = pulumi.get_stack(), pulumi.Config("nanoclaw")
    values: dict[str, Any] = {key: value for key in ("platform", "layout") if (value := config.get(key)) is not None}
    if (protect := config.get_bool("protectData")) is not None:
        values["protectData"] = protect
    if (rest := config.get_object("settings")) is not None:
        values["settings"] = rest
    settings = StackSettings.read(name, values, environ)
    return Stack(name, settings, StackSecrets.read(name, config, settings))
