"""Requests in the pod: which files the agent left for its host, and which of them may go.

As `ipc.requests` reads them, with its care and its bounds, but without judging: the controller does. A file that was
sent stays until the controller has dealt with it, so nothing is lost with a stream, a container or a pod; the next
one sends it again, and its time of change and content make it the same request. Everything here blocks.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_runtime.bridge.protocol import LATEST, Form, Request
from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc import requests
from nanoclaw_runtime.ipc.descriptors import walked_folder

Place = tuple[str, bytes]
"""Kind and name."""


@dataclass(frozen=True)
class _Sent:
    serial: int
    identity: tuple[int, ...]
    size: int


class Requests:
    """What one stream carries; begin with a new one on the next."""

    def __init__(self, ipc: Path) -> None:
        self._ipc = ipc
        self._serials = itertools.count(1)
        self._open: dict[Place, _Sent] = {}
        self._stuck: dict[Place, tuple[int, ...]] = {}

    def look(self, kind: RequestKind) -> Iterator[Request]:
        """What is new of a kind, as far as it may be under way at once. Raises OSError, also behind some of it."""
        with walked_folder(self._ipc, kind.value) as folder:
            yield from self._new_ones(kind.value, folder)

    def handled(self, serial: int) -> None:
        """The controller has dealt with it: remove the file, unless another one has taken its name."""
        place = next((place for place, sent in self._open.items() if sent.serial == serial), None)
        if place is None:
            return
        sent = self._open.pop(place)
        kind, name = place
        try:
            with walked_folder(self._ipc, kind) as folder:
                if requests.identity_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) == sent.identity:
                    requests.remove(folder, name)
        except FileNotFoundError:
            pass
        except OSError:
            self._stuck[place] = sent.identity

    def _new_ones(self, kind: str, folder: int) -> Iterator[Request]:
        for name in _names(folder):
            place = kind, name
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            identity = requests.identity_of(found)
            known = self._open.get(place)
            if self._stuck.get(place) == identity or (known is not None and known.identity == identity):
                continue
            if not self._has_room(place):
                return
            request = _read(kind, name, found, folder)
            if request is not None:
                request.serial = next(self._serials)
                self._open[place] = _Sent(request.serial, identity, len(request.content))
                yield request

    def _has_room(self, place: Place) -> bool:
        """Beside the others: a file may have grown since it was sent."""
        others = {other: sent.size for other, sent in self._open.items() if other != place}
        few = sum(kind == place[0] for kind, _ in others) < bridge.REQUESTS_AT_ONCE
        return few and sum(others.values()) <= bridge.REQUEST_BYTES_AT_ONCE


def _names(folder: int) -> list[bytes]:
    with os.scandir(folder) as entries:
        found = [os.fsencode(entry.name) for entry in itertools.islice(entries, requests.NAMES_AT_ONCE)]
    return sorted(name for name in found if name.endswith(b".json"))


def _read(kind: str, name: bytes, found: os.stat_result, folder: int) -> Request | None:
    """None when it is being written to, or is gone."""
    modified = max(-LATEST, min(found.st_mtime_ns, LATEST))
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        return Request(0, kind, name, modified, Form.FOREIGN)
    try:
        with requests.opened_file(folder, name) as descriptor:
            content, after = requests.read_bounded(descriptor), os.fstat(descriptor)
    except FileNotFoundError:
        return None
    except OSError:
        return Request(0, kind, name, modified, Form.FOREIGN)
    if requests.identity_of(after) != requests.identity_of(found) or not after.st_nlink:
        return None
    if len(content) > requests.LARGEST_FILE:
        return Request(0, kind, name, modified, Form.LARGE, content[: requests.EVIDENCE])
    return Request(0, kind, name, modified, Form.FILE, content)
