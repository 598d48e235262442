"""What the matrix stands on, and where its cells are written to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.matrix import ENV_FOLDER, Cell, keep
from tests.support.docker_site import own_engine, with_echo_agent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The whole matrix takes minutes, so it is left out unless its mark is asked for."""
    if "matrix" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("matrix")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


Record = Callable[[str, str, dict[str, Cell]], None]


@pytest.fixture(scope="session")
def record() -> Record:
    """Keeps what was found in a column of a table, where somebody asked for that."""
    folder, numbers = os.environ.get(ENV_FOLDER), itertools.count()

    def kept(table: str, column: str, cells: dict[str, Cell]) -> None:
        if folder is not None:
            keep(Path(folder), next(numbers), table, column, cells)

    return kept


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """A Docker engine of the tests' own."""
    with own_engine(tmp_path_factory.mktemp("docker") / "engine") as running:
        yield running


@pytest.fixture(scope="session")
def echo_agent(engine: DockerEngine) -> str:
    """The reference agent's image, on the engine."""
    return with_echo_agent(engine)
