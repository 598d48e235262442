"""The settings and groups of a Docker host, from the stack file of a cluster or a plain one.

A stack file keeps both below `config: nanoclaw:settings:`; in a plain file `runtime:` and `groups:`
stand at the top. What is the cluster's business (namespace, storage, the controller's image,
encrypted values) is passed over, so the same file serves both places. Groups are read again
whenever the file changes; settings need a restart, as they do on a cluster.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog
import yaml
from pydantic import BaseModel, ValidationError

from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Pattern, Transport
from nanoclaw_runtime.domain.errors import SettingsInvalid

LOOK: Final = 2.0
"""Seconds between two looks at the file."""

SETTINGS: Final = "nanoclaw:settings"

_ELSEWHERE: Final = ("platform", "layout", "placement", "registrationStorage", "scc", "closedNetwork", "gateway")
# A cluster's: who chooses uids, how claims are cut and what they ask for, where pods run and what they reach.
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")

_Model = TypeVar("_Model", bound=BaseModel)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StackFile:
    """What one file says about a host."""

    config: ControllerConfig
    groups: Groups

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str]) -> Self:
        """The file's content as it is now. Raises SettingsInvalid with everything that is wrong with it."""
        return cls.parse(str(path), _text(path), environ)

    @classmethod
    def parse(cls, name: str, text: str, environ: Mapping[str, str]) -> Self:
        """The same from the text of the file called `name`."""
        document = _document(name, text)
        runtime = document.get("runtime")
        if not isinstance(runtime, dict):
            raise SettingsInvalid(f"{name} has no map `runtime`, at its top or in `{SETTINGS}`; write one")
        ours = {key: value for key, value in runtime.items() if key not in _ELSEWHERE}
        ours = _with_image(name, ours, environ) | {
            "pattern": Pattern.DOCKER.value,
            "layout": Layout.SHARED.value,
            "transport": Transport.VOLUME.value,
        }
        problems: list[str] = []
        config = _validated(ControllerConfig, ours, "runtime", problems)
        groups = _validated(Groups, {"groups": document.get("groups") or []}, "", problems)
        if config is None or groups is None:
            raise SettingsInvalid("\n  - ".join([f"{name} cannot be used:", *problems]))
        return cls(config, groups)


async def watch_groups(
    path: Path, environ: Mapping[str, str], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[Groups]:
    """The file's groups, at once and whenever they change. Never ends; the last good ones stay in force.

    A change counts when two looks find the same: of a file that is being written, the beginning may well be a stack
    with fewer groups.
    """
    seen: _Look | None = None
    taken: _Look | None = None
    known: Groups | None = None
    while True:
        before, seen = seen, await asyncio.to_thread(_look, path)
        if seen != taken and (taken is None or seen == before):
            taken = seen
            try:
                found = await asyncio.to_thread(_groups, path, seen, environ)
            except SettingsInvalid as error:
                _log.error("groups.invalid", problem=str(error))
            else:
                if found != known:
                    known = found
                    yield found
        await sleep(LOOK)


_Look = tuple[str, str]
"""A file's text, and why it cannot be read."""


def _look(path: Path) -> _Look:
    try:
        return _text(path), ""
    except SettingsInvalid as error:
        return "", str(error)


def _groups(path: Path, look: _Look, environ: Mapping[str, str]) -> Groups:
    text, trouble = look
    if trouble:
        raise SettingsInvalid(trouble)
    return StackFile.parse(str(path), text, environ).groups


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path} cannot be read ({error}); name a stack file") from error


def _document(name: str, text: str) -> dict[str, Any]:
    """The map that holds `runtime` and `groups`."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a day that no month has is the latter
        raise SettingsInvalid(f"{name} is no YAML: {' '.join(str(error).split())}; correct it") from error
    if isinstance(document, dict) and isinstance(config := document.get("config"), dict):
        document = config.get(SETTINGS)
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{name} has no settings; write `runtime:` and `groups:`, or name a stack file")
    return document


def _with_image(name: str, runtime: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """`runtime` with the variables in the agent's image replaced, as the stack of the embedded cluster has them."""
    agent = runtime.get("agent")
    image = agent.get("image") if isinstance(agent, dict) else None
    if not isinstance(agent, dict) or not isinstance(image, str):
        return runtime
    if unset := [variable for variable in _VARIABLE.findall(image) if not environ.get(variable)]:
        raise SettingsInvalid(
            f"{name}: runtime.agent.image is {image!r}, and {unset[0]} is not set; set it to an image reference"
        )
    return runtime | {"agent": agent | {"image": _VARIABLE.sub(lambda found: environ[found[1]], image)}}


def _validated(model: type[_Model], value: dict[str, Any], field: str, problems: list[str]) -> _Model | None:
    try:
        return model.model_validate(value)
    except ValidationError as refused:
        problems += [
            f"{_place(field, error['loc'])}: {error['msg'].removeprefix('Value error, ')}" for error in refused.errors()
        ]
    return None


def _place(field: str, location: Sequence[int | str]) -> str:
    path = field
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".").replace("groups.groups", "groups", 1) or "the file"
