"""A Docker engine of the tests' own, with the images of the tests, and trees for installations on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nanoclaw_dev.docker_engine import DockerEngine
from tests.support import script_agent
from tests.support.docker_site import DockerSite, own_engine, with_echo_agent


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """Running for the whole session; its containers have no network."""
    with own_engine(tmp_path_factory.mktemp("docker") / "engine") as running:
        running.load(script_agent.image_archive(tmp_path_factory.mktemp("image")))
        yield running


@pytest.fixture(scope="session")
def echo_agent(engine: DockerEngine) -> str:
    """The reference agent's image, on the engine."""
    return with_echo_agent(engine)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "tree"


@pytest.fixture
async def site(engine: DockerEngine, tree: Path) -> AsyncIterator[DockerSite]:
    """An installation without a controller; its containers are gone behind it."""
    async with DockerSite.open(engine, tree) as opened:
        yield opened
