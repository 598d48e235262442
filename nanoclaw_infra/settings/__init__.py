"""What a stack file may say, checked before the first resource is declared.

The only reader of `pulumi.Config` and of the environment. One model a part of the platform, joined
in `stack`; what can never work together is in `rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pulumi

from nanoclaw_infra.settings.secrets import StackSecrets
from nanoclaw_infra.settings.stack import StackSettings

RENDER_VARIABLE: Final = "NANOCLAW_RENDER"
"""Names the folder `make render` has the objects written to."""


@dataclass(frozen=True)
class Stack:
    """One environment, read and checked."""

    name: str
    settings: StackSettings
    secrets: StackSecrets
    render_to: str | None = None
    """Folder for the objects as YAML, in place of a cluster."""


def load_stack(environ: Mapping[str, str]) -> Stack:
    """The stack the engine runs the program for. Raises StackRefused with everything that is wrong with it."""
    name, config = pulumi.get_stack(), pulumi.Config("nanoclaw")
    values: dict[str, Any] = {key: value for key in ("platform", "layout") if (value := config.get(key)) is not None}
    if (protect := config.get_bool("protectData")) is not None:
        values["protectData"] = protect
    if (rest := config.get_object("settings")) is not None:
        values["settings"] = rest
    settings = StackSettings.read(name, values, environ)
    secrets = StackSecrets.read(name, config, settings)
    return Stack(name, settings, secrets, render_to=environ.get(RENDER_VARIABLE))
