from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from nanoclaw_dev import engine as engine_module
from nanoclaw_dev import up
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress


@pytest.mark.parametrize("ask", [up.env, lambda progress: up.preview(progress, "local")], ids=["env", "preview"])
def test_a_cluster_that_does_not_run_is_told_and_nothing_goes_to_the_shell(ask, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCLAW_STATE", str(tmp_path))
    with pytest.raises(SetupError, match="`make up` first"):
        ask(Progress())
    assert capsys.readouterr().out == ""


@pytest.fixture
def engine(tmp_path):
    cli = tmp_path / "pulumi"
    cli.touch()
    return Engine(EngineBinaries(cli, cli, "a test"), state=tmp_path / "state")


def test_strays_are_ended_however_long_their_lock_was_waited_for(engine, monkeypatch):
    """Another command may hold it for minutes."""
    monkeypatch.setattr(engine_module, "STRAYS_END", 0)
    with subprocess.Popen(["sleep", "60"], env=engine.environment()) as stray:
        try:
            engine.end_strays()
            assert stray.wait(30) == -signal.SIGKILL
        finally:
            stray.kill()


def test_a_run_that_ended_is_over_though_nobody_reaps_it():
    """As in a container whose first process reaps nobody."""
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{ended.pid}").exists()
        assert not engine_module._runs(str(ended.pid))
    assert engine_module._runs(str(os.getpid()))


def test_a_shell_with_the_engines_environment_outlives_the_end_of_strays(engine):
    """As `make down` typed after `eval "$(make env)"`; an engine's own child is ended."""
    sleep = ["sleep", "60"]
    with (
        subprocess.Popen(sleep, env=engine.shell_environment()) as shell,
        subprocess.Popen(sleep, env=engine.environment()) as stray,
    ):
        try:
            engine.end_strays()
            assert stray.wait(30) == -signal.SIGKILL
            assert shell.poll() is None
        finally:
            shell.kill()
            stray.kill()
