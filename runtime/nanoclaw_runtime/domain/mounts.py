"""NanoClaw's own mount allowlist file, as the settings know it.

For a Docker host that moves here, or back: `~/.config/nanoclaw/mount-allowlist.json`. Reading the file is the host
command's business; what may be mounted is `contract.mounts`.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from nanoclaw_runtime.contract.config import MountAllowlist
from nanoclaw_runtime.domain.errors import SettingsInvalid

_TYPES = {
    "allowedRoots": (list, "a list"),
    "blockedPatterns": (list, "a list"),
    "nonMainReadOnly": (bool, "true or false"),
}


def load_allowlist(text: str) -> MountAllowlist:
    """The allowlist in the text of such a file. What NanoClaw does not know in it is passed over, as it does.

    Raises SettingsInvalid when it is no JSON, or one of its three keys is missing or of another type: NanoClaw
    then blocks every additional mount, which is what going on without an allowlist does.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"the mount allowlist is no JSON ({error}); correct it or remove it") from None
    _check(content)
    roots = [_known(root, "path", "allowReadWrite") for root in content["allowedRoots"]]
    known = _known(content, *_TYPES) | {"allowedRoots": roots}
    try:
        return MountAllowlist.model_validate_json(json.dumps(known), strict=True)
    except ValidationError as refused:
        first = refused.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsInvalid(f"the mount allowlist is wrong at {where}: {first['msg']}; correct it") from None


def _check(content: Any) -> None:
    if not isinstance(content, dict):
        raise SettingsInvalid("the mount allowlist is no JSON object; write one with " + ", ".join(_TYPES))
    for key, (kind, meaning) in _TYPES.items():
        if not isinstance(content.get(key), kind):
            raise SettingsInvalid(f"the mount allowlist needs {key}, {meaning}; without it nothing is mounted")


def _known(content: Any, *keys: str) -> Any:
    return {key: content[key] for key in keys if key in content} if isinstance(content, dict) else content
