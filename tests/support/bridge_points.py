"""The container beside an agent, that kills itself at a chosen step, as a test asks by NANOCLAW_DIE_AT."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable

from nanoclaw_runtime.bridge import pod, pod_inputs
from nanoclaw_runtime.bridge.__main__ import main
from nanoclaw_runtime.bridge.pod_inputs import Inputs
from nanoclaw_runtime.bridge.pod_requests import Requests
from nanoclaw_runtime.bridge.protocol import Channel, Report, Taken
from nanoclaw_runtime.ipc import archive

VARIABLE = "NANOCLAW_DIE_AT"

POINTS: dict[str, tuple[object, str, bool]] = {
    "folders made": (pod.PodBridge, "_prepare", False),
    "files fetched": (archive, "unpack", False),
    "skills copied": (pod, "furnish", False),
    "input written aside": (Inputs, "_note", True),
    "input noted": (Inputs, "_note", False),
    "input given": (pod_inputs, "_give", False),
    "taken, not told": (Channel, "send", True),
    "request read": (Requests, "_new_ones", False),
    "request dealt with": (Requests, "handled", True),
    "request removed": (Requests, "handled", False),
    "last report said": (Channel, "send", False),
}
"""Where it dies: in which function, and whether before it or behind."""

_ONLY = {"taken, not told": Taken, "last report said": Report}


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(function: Callable, *, before: bool, only: type | None) -> Callable:
    @functools.wraps(function)
    def dies(*arguments, **named):
        wanted = only is None or isinstance(arguments[-1], only)
        if before and wanted:
            _die()
        result = function(*arguments, **named)
        if hasattr(result, "__await__"):
            return _awaited(result, wanted=wanted)
        if hasattr(result, "__next__"):
            result = list(result)
            wanted = wanted and bool(result)
        if wanted:
            _die()
        return result

    return dies


async def _awaited(result, *, wanted: bool):
    await result
    if wanted:
        _die()


if __name__ == "__main__":
    name = os.environ[VARIABLE]
    owner, method, first = POINTS[name]
    setattr(owner, method, _dying(getattr(owner, method), before=first, only=_ONLY.get(name)))
    main()
