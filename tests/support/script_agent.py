"""An agent whose input is a shell script: each test writes down what its agent does.

Like the real one it first does something else (`START_DELAY` seconds), then reads stdin to its
end, ignores SIGTERM as any shell that is process 1, and prints outputs between markers.
"""

from __future__ import annotations

from pathlib import Path

from nanoclaw_dev import system
from nanoclaw_dev.cluster import archive

IMAGE = "localhost/nanoclaw-test/script-agent:1"

_ENTRY = b"""#!/bin/sh
sleep "${START_DELAY:-0}"
cat > /tmp/input || exit 2
. /tmp/input
"""

_FUNCTIONS = b"""#!/bin/sh
output() {
    printf -- '---NANOCLAW_OUTPUT_START---\\n{"status":"success","result":"%s"}\\n---NANOCLAW_OUTPUT_END---\\n' "$1"
}
"""


def image_archive(folder: Path) -> Path:
    """The image, made of Debian's static busybox and two scripts."""
    busybox = Path(system.required("busybox")).read_bytes()
    commands = ("sh", "cat", "sleep", "printf", "tail", "seq", "wc", "head", "tr", "rm", "ls", "mv", "find", "chown")
    return archive.write_image(
        folder / "script-agent.tar",
        IMAGE,
        files={"/bin/busybox": busybox, "/entry": _ENTRY, "/functions": _FUNCTIONS},
        links={f"/bin/{command}": "busybox" for command in commands},
        entrypoint=("/entry",),
        environment=("PATH=/bin",),
    )


def script(*lines: str) -> bytes:
    """The stdin of an agent that does this. `output <word>` prints one output."""
    return "\n".join((". /functions", *lines, "")).encode()
