"""What is in the API now and whatever changes, for programs that run as long as the cluster.

One list, then a watch, and again from the list when the watch ends, breaks or falls silent: what a
watch missed is found then. The API server may come and go. Plain dicts; nothing is written here.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from nanoclaw_dev.cluster.api import Api
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.errors import SetupError

WATCH = 60
# Seconds after which the server ends a watch, and we list again.
RETRY = 0.5
# Seconds between attempts while the API server is away.

Manifest = dict[str, Any]
Kept = TypeVar("Kept")

log = logging.getLogger("follow")


def follow(
    api: Api,
    path: str,
    *,
    listed: Callable[[list[Manifest]], None],
    changed: Callable[[Manifest], None],
    gone: Callable[[Manifest], None],
) -> NoReturn:
    """Tell all objects at `path`, then each that changes or goes; from the beginning after any trouble.

    What the callables raise as OSError or SetupError counts as trouble too.
    """
    while True:
        try:
            found = api.list(path)
            listed(found["items"])
            for change in api.watch(path, found["metadata"]["resourceVersion"], seconds=WATCH):
                if change["type"] == "ERROR":
                    break
                (gone if change["type"] == "DELETED" else changed)(change["object"])
        except (SetupError, OSError, http.client.HTTPException, ValueError) as error:
            log.warning("listing %s again after %s: %s", path, type(error).__name__, error)
            time.sleep(RETRY)


class Mirror(Generic[Kept]):
    """The objects at a path, each as `keep` has it; those it answers None for are left out.

    `wake` is set when what is kept changed. While the API server is away, the last known stays.
    """

    def __init__(self, api: Api, path: str, keep: Callable[[Manifest], Kept | None], wake: threading.Event) -> None:
        self._keep, self._wake = keep, wake
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] | None = None
        handlers = {"listed": self._listed, "changed": self._changed, "gone": self._gone}
        threading.Thread(target=follow, args=(api, path), kwargs=handlers, name=path, daemon=True).start()

    def known(self) -> bool:
        """Everything was listed once."""
        return self._kept is not None

    def values(self) -> list[Kept]:
        with self._lock:
            return list((self._kept or {}).values())

    def _listed(self, objects: list[Manifest]) -> None:
        kept = {each["metadata"]["uid"]: value for each in objects if (value := self._keep(each)) is not None}
        with self._lock:
            before, self._kept = self._kept, kept
        if kept != before:
            self._wake.set()

    def _changed(self, found: Manifest) -> None:
        self._put(found["metadata"]["uid"], self._keep(found))

    def _gone(self, found: Manifest) -> None:
        self._put(found["metadata"]["uid"], None)

    def _put(self, uid: str, value: Kept | None) -> None:
        with self._lock:
            assert self._kept is not None  # a watch follows a list
            before = self._kept.pop(uid, None)
            if value is not None:
                self._kept[uid] = value
        if value != before:
            self._wake.set()


def instance_of_arguments(purpose: str | None) -> Instance:
    """The cluster that a program was started for, by its command line. Also sets up its log.

    From here on a thread that fails ends the program: it is seen then, and started again.
    """
    threading.excepthook = _end
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--base", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return Instance(arguments.instance, arguments.base)


def _end(failure: threading.ExceptHookArgs) -> None:
    traceback.print_exception(failure.exc_value)
    os._exit(1)
