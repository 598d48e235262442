"""The engine's command line where it cannot be started, or answers as an engine seldom does."""

import asyncio
import contextlib
import gc
from datetime import timedelta

import pytest

from nanoclaw_runtime.backends.docker import DockerBackend
from nanoclaw_runtime.backends.docker_client import DockerClient, EngineAway

PATIENCE = 60


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a program `docker` on PATH that is this shell script."""

    def write(script):
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return write


@pytest.mark.parametrize("there", [False, True], ids=["missing", "not executable"])
async def test_a_client_that_cannot_be_started_is_an_engine_that_is_away(tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "docker").touch(mode=0o600)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineAway, match="docker"):
        await DockerClient().ready()


async def test_an_input_that_is_given_up_leaves_nothing_for_the_loop_to_complain_of(command):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    command("exec sleep 1000")
    client = await DockerClient().open("run", stdin=True)
    client.give(b"x" * 1_000_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.given()
    await client.close()
    await client.given()
    gc.collect()  # a task that failed unheard complains only then
    assert complaints == []


async def test_a_container_that_cannot_be_removed_keeps_no_other_one(command, tmp_path):
    command(f"""
        for last; do :; done
        case $1 in
            ps) printf 'stuck\texited\ta\ts1\tmessages\nother\texited\ta\ts2\tmessages\n' ;;
            inspect) echo '{{"Status": "exited", "ExitCode": 0, "OOMKilled": false}}' ;;
            rm) if [ $last = stuck ]; then echo 'device or resource busy' >&2; exit 1; fi; touch {tmp_path}/$last ;;
        esac""")
    backend = DockerBackend(DockerClient(), tmp_path, keep=0)
    for session in await backend.running():
        await session.stop(grace=timedelta(0))
    life = asyncio.create_task(backend.run())
    async with asyncio.timeout(PATIENCE):
        while not (tmp_path / "other").exists():
            await asyncio.sleep(0.05)
    life.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await life
