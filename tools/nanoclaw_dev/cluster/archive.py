"""Container images of a few static files, as archives that `docker load` and containerd read.

For the images nobody should need a builder for: the pause image of the node and the tests' shell.
The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

from nanoclaw_dev.errors import SetupError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(
    archive: Path,
    tag: str,
    *,
    files: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
    entrypoint: tuple[str, ...] = (),
    environment: tuple[str, ...] = (),
) -> Path:
    """Write an image of one layer to `archive` and return it.

    `files` are executables by their path in the image, `links` symbolic links by theirs.
    """
    layer = _tar(
        [_entry(path, data, mode=0o755) for path, data in files.items()]
        + [_link(path, target) for path, target in (links or {}).items()]
    )
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": list(environment)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "nanoclaw_dev"}],
        },
        sort_keys=True,
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: config, "layer.tar": layer, "manifest.json": manifest}
    archive.write_bytes(_tar([_entry(path, data, mode=0o644) for path, data in parts.items()]))
    return archive


def identity(archive: Path) -> dict[str, str]:
    """The images in an archive: tag → digest of its configuration, which names all of its content.

    Raises SetupError when it is no such archive.
    """
    try:
        with tarfile.open(archive) as file:
            found = {}
            for image in json.loads(_member(file, "manifest.json")):
                digest = hashlib.sha256(_member(file, image["Config"])).hexdigest()
                found.update(dict.fromkeys(image["RepoTags"] or (), digest))
            return found
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise SetupError(
            f"{archive} is no archive of container images ({error}): make it with "
            "`buildah push IMAGE docker-archive:FILE`."
        ) from None


def _member(file: tarfile.TarFile, name: str) -> bytes:
    content = file.extractfile(name)
    if content is None:
        raise KeyError(name)
    return content.read()


def _entry(path: str, data: bytes, *, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.size, entry.mode = len(data), mode
    return entry, data


def _link(path: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    return entry, b""


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for entry, data in entries:
            file.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
