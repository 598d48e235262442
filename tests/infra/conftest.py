from __future__ import annotations

import pytest

from tests.infra.recording import VARIABLES


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    """A home with a kubeconfig in it, and the variables `make up` sets; nothing of the machine's own."""
    kubeconfig = tmp_path / ".kube" / "config"
    kubeconfig.parent.mkdir()
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NANOCLAW_KUBECONFIG", str(kubeconfig))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
