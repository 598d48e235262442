from __future__ import annotations

import hashlib
import json
import tarfile

import pytest

from nanoclaw_dev.cluster import archive
from nanoclaw_dev.errors import SetupError


def write(path, program=b"program"):
    return archive.write_image(
        path,
        "localhost/some/image:1",
        files={"/bin/tool": program},
        links={"/bin/sh": "tool"},
        entrypoint=("/bin/tool",),
    )


def test_the_same_content_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.tar").read_bytes() == write(tmp_path / "b.tar").read_bytes()


def test_the_image_is_what_a_runtime_reads(tmp_path):
    with tarfile.open(write(tmp_path / "a.tar")) as outer:
        (image,) = json.load(outer.extractfile("manifest.json"))
        config = json.load(outer.extractfile(image["Config"]))
        (layer,) = image["Layers"]
        content = outer.extractfile(layer).read()
        outer.extract(layer, tmp_path, filter="data")
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/bin/tool"]
    with tarfile.open(tmp_path / layer) as inner:
        assert inner.extractfile("bin/tool").read() == b"program"
        assert inner.getmember("bin/tool").mode == 0o755
        assert inner.getmember("bin/sh").linkname == "tool"


def test_the_identity_follows_the_content_only(tmp_path):
    first, same = archive.identity(write(tmp_path / "a.tar")), archive.identity(write(tmp_path / "b.tar"))
    other = archive.identity(write(tmp_path / "c.tar", b"another"))
    assert first == same != other
    assert list(first) == list(other) == ["localhost/some/image:1"]


@pytest.mark.parametrize("content", [b"", b"no tar at all"], ids=["empty", "text"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "some.tar"
    path.write_bytes(content)
    with pytest.raises(SetupError, match="docker-archive"):
        archive.identity(path)
