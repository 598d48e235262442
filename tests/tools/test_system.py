from __future__ import annotations

import os
import socket
import subprocess
import sys
from io import StringIO

import pytest

from nanoclaw_dev import system
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress


def test_packages_are_found_by_what_they_bring():
    assert system.missing({"bash": "sh", "imaginary": "no-such-program"}) == ["imaginary"]


def test_nothing_is_installed_when_nothing_is_missing():
    out = StringIO()
    system.install_missing({"bash": "sh"}, Progress(out))
    assert out.getvalue() == ""


def test_somebody_who_may_not_install_is_told_the_command(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if system.program("apt-get") is None:
        pytest.skip("no Debian or Ubuntu")
    with pytest.raises(SetupError, match="sudo apt-get install imaginary"):
        system.install_missing({"imaginary": "no-such-program"}, Progress(StringIO()))


def test_a_missing_program_names_its_package(monkeypatch):
    monkeypatch.setattr(system, "program", lambda _: None)
    with pytest.raises(SetupError, match="apt-get install nftables"):
        system.required("nft")


def test_only_root_gets_a_node(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=r"needs root|needs Linux"):
        system.check_root()


def test_a_port_in_use_is_named_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"Port {port} on 127.0.0.1 .*NANOCLAW_INSTANCE"):
            system.check_ports([("127.0.0.1", port)])
    system.check_ports([("127.0.0.1", port)])


def test_too_little_space_is_told_before_anything_is_made(tmp_path):
    folder = tmp_path / "not" / "made" / "yet"
    with pytest.raises(SetupError, match="NANOCLAW_STATE"):
        system.check_space(folder, needed=1 << 62)
    system.check_space(folder, needed=1)
    assert not folder.exists()


def test_a_user_who_has_too_few_inotify_instances_left_is_told_how_many_and_what_to_do():
    """In a user namespace, which has a limit of its own: at the machine's own one other clusters would fail."""
    script = 'echo "$0" > /proc/sys/user/max_inotify_instances; "$@"'
    limited = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    if subprocess.run([*limited, "4", "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces cannot be made here")

    def check(needed):
        program = f"from nanoclaw_dev import system; system.check_inotify({needed})"
        command = [*limited, "4", sys.executable, "-c", program]
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr.splitlines()

    assert check(4) == []
    told = check(5)[-1]
    assert "needs 5 inotify instances and 4 are left" in told
    assert "sysctl -w fs.inotify.max_user_instances" in told
