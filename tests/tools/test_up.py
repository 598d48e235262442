from __future__ import annotations

import pytest

from nanoclaw_dev import up
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress


@pytest.mark.parametrize("ask", [up.env, lambda progress: up.preview(progress, "local")], ids=["env", "preview"])
def test_a_cluster_that_does_not_run_is_told_and_nothing_goes_to_the_shell(ask, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCLAW_STATE", str(tmp_path))
    with pytest.raises(SetupError, match="`make up` first"):
        ask(Progress())
    assert capsys.readouterr().out == ""
