"""Finding and fetching an engine, against a real HTTP server on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress

NAME = "pulumi-v3.259.0-linux-x64.tar.gz"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002 (the name of the parameter in the base class)
        pass


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Whoever answers is this process, on a machine that may be busy."""
    monkeypatch.setattr(engine_binaries, "NO_ANSWER", 60)


@contextlib.contextmanager
def served(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def release(tmp_path):
    """A release folder with an archive laid out as the official one, and its checksums."""
    folder = tmp_path / "release"
    folder.mkdir()
    with tarfile.open(folder / NAME, "w:gz") as tar:
        for name in ("pulumi/pulumi", "pulumi/pulumi-language-python"):
            member = tarfile.TarInfo(name)
            member.size, member.mode = 4, 0o755
            tar.addfile(member, io.BytesIO(b"body"))
    digest = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    (folder / "sums.txt").write_text(f"{'0' * 64}  other.tar.gz\n{digest}  {NAME}\n")
    return folder


def fetch(address, place):
    return engine_binaries.fetch(f"{address}/{NAME}", f"{address}/sums.txt", place, Progress(io.StringIO()))


def test_a_release_is_unpacked_flat_and_executable(release, tmp_path):
    place = tmp_path / "cache" / "pulumi"
    with served(release) as address:
        assert fetch(address, place)

    assert {file.name for file in place.iterdir()} == {"pulumi", "pulumi-language-python"}
    assert (place / "pulumi").stat().st_mode & 0o111
    assert list(place.parent.iterdir()) == [place], "nothing of the download is left"


def test_an_archive_that_is_not_the_listed_one_is_refused(release, tmp_path):
    (release / "sums.txt").write_text(f"{'0' * 64}  {NAME}\n")

    with (
        served(release) as address,
        pytest.raises(SetupError, match=f"says {'0' * 64}: try again, or put a Pulumi engine"),
    ):
        fetch(address, tmp_path / "pulumi")

    assert not (tmp_path / "pulumi").exists()


def test_an_archive_that_is_not_listed_is_refused(release, tmp_path):
    (release / "sums.txt").write_text("")

    with served(release) as address, pytest.raises(SetupError, match="says nothing about it"):
        fetch(address, tmp_path / "pulumi")


def test_a_network_without_the_release_means_build(release, tmp_path):
    (release / NAME).unlink()
    with served(release) as address:
        assert not fetch(address, tmp_path / "pulumi")
    assert not fetch("http://127.0.0.1:9", tmp_path / "pulumi"), "nobody listens on the discard port"


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        pytest.param("v3.259.0", True, id="ours"),
        pytest.param("v3.300.1", True, id="newer"),
        ("v3.258.9", False),
        ("", False),
    ],
)
def test_an_engine_on_path_is_taken_when_the_sdk_is_not_newer(tmp_path, monkeypatch, version, taken):
    for name in ("pulumi", "pulumi-language-python"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    found = engine_binaries.on_path()

    assert (found == tmp_path / "pulumi") is taken
