"""Volumes that one node has at a time, as a disk in the network is: the driver that attaches and mounts them.

Who may have a volume when is decided by Kubernetes' own attach/detach controller, with its refusals, its patience
with a node that does not answer, and its events. The driver (a FlexVolume: a program that is called for each step)
only says yes to it, and mounts the volume's folder, which all nodes could see, on the one that it was attached to.
No sizes are enforced, and nothing fences a node that is cut off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

DRIVER: Final = "nanoclaw.dev/disk"
FOLDER: Final = "folder"
"""Option of a volume: where its files lie."""

SCRIPT: Final = """\
#!/bin/sh
# What Kubernetes calls to attach and mount a volume of the class nanoclaw-detachable.
case "$1" in
init) echo '{"status": "Success", "capabilities": {"attach": true, "fsGroup": true, "selinuxRelabel": false}}' ;;
attach) printf '{"status": "Success", "device": "%s"}' "$(printf %s "$2" | sed 's/.*"folder":"\\([^"]*\\)".*/\\1/')" ;;
waitforattach) printf '{"status": "Success", "device": "%s"}' "$2" ;;
isattached) echo '{"status": "Success", "attached": true}' ;;
detach) echo '{"status": "Success"}' ;;
mountdevice)
    if message=$(mkdir -p "$2" && mount --bind "$3" "$2" 2>&1); then echo '{"status": "Success"}'
    else printf '{"status": "Failure", "message": "%s"}' "$message"; exit 1; fi ;;
*) echo '{"status": "Not supported"}' ;;  # and done by the kubelet itself
esac
"""


def install(plugins: Path) -> None:
    """Put the driver where a kubelet, or the controller manager, looks for such; before it starts."""
    vendor, _, name = DRIVER.partition("/")
    file = plugins / f"{vendor}~{name}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{name}")  # such a name is nothing to them
    new.write_text(SCRIPT)
    new.chmod(0o755)
    new.replace(file)


def source(folder: Path) -> dict[str, Any]:
    """The part of a PersistentVolume that says where its files are."""
    return {"flexVolume": {"driver": DRIVER, "options": {FOLDER: str(folder)}}}


def folder_of(volume: dict[str, Any]) -> Path | None:
    """The folder of a volume of this driver; None for any other."""
    found = volume["spec"].get("flexVolume")
    return Path(found["options"][FOLDER]) if found and found["driver"] == DRIVER else None
