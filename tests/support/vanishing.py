"""Files that go in the moment behind the look that found them, as an agent's do that works meanwhile."""

import contextlib
import os

GONE = "gone"


def remove_behind_each_look(monkeypatch):
    """From now on whatever has `GONE` in its name is listed once, and is removed before anybody touches it."""
    scandir, listdir = os.scandir, os.listdir

    @contextlib.contextmanager
    def seen(folder="."):
        with scandir(folder) as entries:
            found = list(entries)
        _remove(folder, [entry.name for entry in found])
        yield iter(found)

    def names(folder="."):
        found = listdir(folder)
        _remove(folder, found)
        return found

    monkeypatch.setattr(os, "scandir", seen)
    monkeypatch.setattr(os, "listdir", names)


def _remove(folder, names):
    if isinstance(folder, int):
        for name in names:
            if GONE in name:
                with contextlib.suppress(IsADirectoryError):
                    os.unlink(name, dir_fd=folder)
                    continue
                os.rmdir(name, dir_fd=folder)
