"""What a stack keeps encrypted, and whether everything that needs a secret has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import pulumi

from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import wire

CREDENTIALS: Final = "nanoclaw:credentials"
API_TOKEN: Final = "nanoclaw:apiToken"  # noqa: S105


@dataclass(frozen=True)
class StackSecrets:
    """What a stack keeps encrypted; the values are secret Outputs, never plain text."""

    credentials: pulumi.Output[dict[str, str]] | None
    """What agents get on stdin and what the controller keeps for its chat networks, by the names of
    `contract.wire.SECRET_KEYS` and `CHANNEL_SECRET_KEYS`."""
    api_token: pulumi.Output[str] | None
    """Bearer token of the controller's API; generated once when left out."""

    @classmethod
    def read(cls, stack: str, config: pulumi.Config, settings: StackSettings) -> Self:
        """The secrets of the stack.

        Raises StackRefused when one is not encrypted, is missing, or nobody would get it, or when credentials come
        from two sides.
        """
        given = config.get_object(CREDENTIALS.partition(":")[2])
        first = next(iter(given), wire.SECRET_KEYS[0]) if isinstance(given, dict) else wire.SECRET_KEYS[0]
        problems = [
            f"{key} is in the stack file as plain text; remove it and run `pulumi config set --secret {how}`"
            for key, how in ((CREDENTIALS, f"--path {CREDENTIALS}.{first}"), (API_TOKEN, API_TOKEN))
            if pulumi.runtime.get_config(key) is not None and not pulumi.runtime.is_config_secret(key)
        ]
        if given is not None and not isinstance(given, dict):
            problems.append(f"{CREDENTIALS} is not a map; give one credential a key, with --path")
        else:
            problems += _useless(given or {}, settings) + _missing(given or {}, settings)
        problems += _twice(given, settings)
        if problems:
            raise StackRefused(stack, problems)
        return cls(
            credentials=None if given is None else pulumi.Output.secret(given),
            api_token=config.get_secret(API_TOKEN.partition(":")[2]),
        )


def _useless(credentials: Mapping[str, Any], settings: StackSettings) -> list[str]:
    known = (*wire.SECRET_KEYS, *wire.CHANNEL_SECRET_KEYS)
    unknown = sorted(credentials.keys() - set(known))
    problems = [f"{CREDENTIALS}.{each} is passed on to nobody; there are {', '.join(known)}" for each in unknown]
    if settings.gateway.enabled and wire.BASE_URL_KEY in credentials:
        problems.append(
            f"{CREDENTIALS}.{wire.BASE_URL_KEY} has no effect with the gateway, which agents are sent to; write the "
            "model's address into nanoclaw:settings.gateway.serves.upstream"
        )
    return problems


def _twice(given: Any, settings: StackSettings) -> list[str]:
    theirs = settings.credentials
    sources = {
        CREDENTIALS: given is not None,
        f"nanoclaw:settings.credentials.existingSecret ({theirs.existing_secret!r})": bool(theirs.existing_secret),
        "nanoclaw:settings.credentials.external": theirs.external is not None,
    }
    if len(found := [source for source, there in sources.items() if there]) < 2:
        return []
    return [f"credentials come from {' and from '.join(found)}; keep one of them"]


def _missing(credentials: Mapping[str, Any], settings: StackSettings) -> list[str]:
    """What a Secret of somebody else holds cannot be seen from here."""
    if settings.credentials.existing_secret:
        return []
    if settings.credentials.external is not None:
        credentials = settings.credentials.external.data
    problems = []
    key = wire.TELEGRAM_TOKEN_KEY
    if settings.runtime.channels.telegram is not None and not credentials.get(key):
        problems.append(
            f"nanoclaw:settings.runtime.channels.telegram is set, and there is no {key}; run "
            f"`pulumi config set --secret --path {CREDENTIALS}.{key}`, or name a Secret that has it in "
            "nanoclaw:settings.credentials.existingSecret"
        )
    if settings.gateway.enabled and not any(credentials.get(key) for key in wire.MODEL_KEYS):
        problems.append(
            "nanoclaw:settings.gateway.enabled is true, and the gateway has no key for the model; run "
            f"`pulumi config set --secret --path {CREDENTIALS}.{wire.MODEL_KEYS[0]}`, or name a Secret that has it in "
            "nanoclaw:settings.credentials.existingSecret"
        )
    return problems
