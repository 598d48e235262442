"""The folders of a node that an agent mounts, with the pattern `nodelocal`.

Each volume is a folder whose parents no agent can write to, so nobody inside a pod chooses what the
node resolves; what lies deeper, where an agent can put a link, is mounted by subPath, which the
kubelet opens without following any. The member makes the folders before the pod: a kubelet would make
them root's, and `type: Directory` keeps it from making any.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.contract.claims import Layout

CUT = Layout.PER_TYPE
"""How the folders are cut into volumes; each has the name of the claim it stands for."""


def node_volumes(node_root: str, folder: str, claims: Iterable[str]) -> list[dict[str, Any]]:
    """Entries of a pod's `volumes`, one for each of the claims."""
    places = {
        names.group_claim(folder): layout.group_dir(folder),
        names.ipc_claim(folder): layout.ipc_dir(folder),
        names.sessions_claim(folder): layout.sessions_dir(folder),
        names.PROJECT_CLAIM: layout.PROJECT_DIR,
        names.GLOBAL_CLAIM: layout.GLOBAL_DIR,
    }
    root = PurePosixPath(node_root)
    return [{"name": claim, "hostPath": {"path": str(root / places[claim]), "type": "Directory"}} for claim in claims]
