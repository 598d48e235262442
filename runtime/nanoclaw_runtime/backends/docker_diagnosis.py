"""What went wrong with a session's container, from what the engine says about it.

The counterpart of `kube.diagnose`: the same kinds, the same sentences for the chat. Pure. Nothing
an agent printed to stdout is ever quoted; of stderr the last 200 characters, as NanoClaw does.
"""

from __future__ import annotations

import re

from nanoclaw_runtime.backends.docker_client import Container, DockerFailed, EngineAway, State
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.kube.diagnose import BROKEN, BUSY, FAILED, INTERRUPTED, STDERR_SHOWN, TOO_BIG

_REFUSALS = (
    (
        r"no such image|unable to find image|pull access denied|manifest .*(unknown|not found)|invalid reference",
        FailureKind.IMAGE,
        "check the agent image's name, or `docker load` it",
    ),
    (r"is already in use by container", FailureKind.REFUSED, "remove that container; its name is this session's"),
    (
        r"bind source path does not exist|invalid mount config|mounts denied",
        FailureKind.VOLUME,
        "check that the engine runs on this machine and sees the tree",
    ),
    (r"network .*not found", FailureKind.REFUSED, "create that network, or name another with --network"),
    (r"oci runtime|executable file not found|permission denied", FailureKind.IMAGE, "check the agent image"),
)
"""What the engine's words mean, the first that fits."""


def refused(name: str, error: DockerFailed) -> Diagnosis:
    """Why there is no container, or why the engine did not do what a session needed."""
    text = _sentence(str(error))
    if isinstance(error, EngineAway):
        return Diagnosis(FailureKind.API, f"container {name}: {text}; check that the Docker engine runs", BUSY)
    for pattern, kind, remedy in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return Diagnosis(kind, f"container {name}: {text}; {remedy}", BROKEN)
    return Diagnosis(FailureKind.REFUSED, f"container {name}: {text}; see the engine's own log", BROKEN)


def late(name: str, container: Container | None) -> Diagnosis:
    """The agent did not have its input before its deadline; `container` is what there is of it."""
    if container is None:
        text = f"there was no container {name} in time; pull the agent image beforehand, or look at the engine's load"
    elif container.ran:
        text = f"the agent in container {name} did not take its input in time; raise the start timeout"
    else:
        text = f"container {name} did not run in time; look at the engine's load and its log"
    return Diagnosis(FailureKind.START_TIMEOUT, text, BUSY)


def ending(name: str, state: State, stderr: str = "", *, stopped: bool = False) -> Diagnosis | None:
    """Why this container did not end well; None when its agent exited with 0. `stopped`: we ended it."""
    code = state.exit_code
    if code == 0:
        return None
    tail = _sentence(stderr[-STDERR_SHOWN:])
    behind = f": {tail}" if tail else f"; see `docker logs {name}`"
    if state.out_of_memory:
        text = f"container {name} used more memory than its limit and was killed; raise the agents' memory limit"
        return Diagnosis(FailureKind.OUT_OF_MEMORY, text, TOO_BIG, code)
    if stopped:
        return Diagnosis(FailureKind.STOPPED, f"container {name} was stopped", INTERRUPTED, code)
    if code in {137, 143}:
        text = f"container {name} was killed (exit code {code}), by hand or by a restart of the engine{behind}"
        return Diagnosis(FailureKind.STOPPED, text, INTERRUPTED, code)
    return Diagnosis(FailureKind.EXIT, f"the agent in container {name} exited with code {code}{behind}", FAILED, code)


def vanished(name: str, *, stopped: bool) -> Diagnosis:
    """The container is no more, and nobody saw how it ended."""
    how = "was stopped" if stopped else "was removed by somebody while its agent ran"
    return Diagnosis(FailureKind.STOPPED, f"container {name} {how}", INTERRUPTED)


def predecessor(name: str, session: str) -> Diagnosis:
    """The group's earlier agent does not make way."""
    text = f"container {name} of session {session} still runs in the same group; stop that session first"
    return Diagnosis(FailureKind.START_TIMEOUT, text, BUSY)


def unusable_folder(error: OSError) -> Diagnosis:
    text = f"the agent's folders cannot be made ready ({error}); check the tree's owner and its disk"
    return Diagnosis(FailureKind.VOLUME, text, BROKEN)


def unreadable(name: str, error: str) -> Diagnosis:
    text = f"the log of container {name} cannot be read, so answers may be missing: {_sentence(error)}"
    return Diagnosis(FailureKind.API, f"{text}; check the engine and its disk", INTERRUPTED)


def cut_off(name: str, left: int, known: int) -> Diagnosis:
    text = f"the log of container {name} has only {left} of at least {known} outputs, so answers may be missing"
    return Diagnosis(FailureKind.API, f"{text}; the agent printed more than the log keeps", INTERRUPTED)


def _sentence(text: str) -> str:
    """One line without the trailing full stop, at most 400 characters."""
    line = re.sub(r"\s+", " ", text).strip().rstrip(".;")
    return line if len(line) <= 400 else f"{line[:399]}…"
