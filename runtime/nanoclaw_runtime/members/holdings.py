"""Which groups' data lies on this node, and of which generation: a file beside the database.

It is what is left when the record is lost, with the namespace say: the folders of groups that went
elsewhere are there as well, and only this file tells them from those that are served.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FILE: Final = "assigned.json"


class Holdings:
    """Read once, written at each change."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the store's. Raises OSError when the file is there and cannot be read."""
        self._file = directory / FILE
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            content = {}
        except ValueError:  # cut off by a node that lost its power: the record tells, as long as there is one
            content = {}
        self._groups = {str(folder): int(number) for folder, number in content.items()}

    def groups(self) -> Mapping[str, int]:
        return dict(self._groups)

    def now(self, groups: Mapping[str, int]) -> None:
        """These are the groups that are served. Raises OSError."""
        if dict(groups) == self._groups:
            return
        new = self._file.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(dict(groups), file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)
        self._groups = dict(groups)
