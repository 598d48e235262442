"""The engine's command line, where there is none that can be started."""

import pytest

from nanoclaw_runtime.backends.docker_client import DockerClient, EngineAway


@pytest.mark.parametrize("there", [False, True], ids=["missing", "not executable"])
async def test_a_client_that_cannot_be_started_is_an_engine_that_is_away(tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "docker").touch(mode=0o600)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineAway, match="docker"):
        await DockerClient().ready()
