"""What the pod was given: the one reader of the environment, of mounted settings and of mounted secrets.

Read once at start, except secrets, which are read again for each use: Kubernetes replaces the
files in place when a Secret changes. The groups are not here, they are watched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from nanoclaw_runtime.contract import config, gateway, layout, names, wire
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.domain.errors import SettingsInvalid

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Where Kubernetes tells a pod its namespace.
_LOOKS: Final = 3
# For a file that seems missing: Kubernetes may have replaced the folder that a look was on its way through.


@dataclass(frozen=True)
class RuntimeSettings:
    """Everything the controller's process knows before it talks to anybody."""

    config: ControllerConfig
    tree: Path
    """The NanoClaw-shaped tree of group folders, mailboxes and the store."""
    namespace: str
    database_url: str
    credentials_dir: Path
    api_token_dir: Path
    gateway_key_dir: Path

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Settings from the environment and the files it points to.

        Raises SettingsInvalid for whatever is missing or wrong, the API's token included.
        """
        tree = Path(environ.get(config.ENV_TREE) or layout.TREE)
        database = tree / layout.STORE_DIR / layout.DATABASE_FILE
        settings = cls(
            config=_controller_config(Path(environ.get(config.ENV_CONFIG_DIR) or config.CONFIG_DIR)),
            tree=tree,
            namespace=environ.get(config.ENV_NAMESPACE) or _own_namespace(),
            database_url=environ.get(config.ENV_DATABASE_URL) or f"sqlite+aiosqlite:///{database}",
            credentials_dir=Path(environ.get(config.ENV_CREDENTIALS_DIR) or config.CREDENTIALS_DIR),
            api_token_dir=Path(environ.get(config.ENV_API_TOKEN_DIR) or config.API_TOKEN_DIR),
            gateway_key_dir=Path(environ.get(gateway.ENV_KEY_DIR) or gateway.KEY_DIR),
        )
        settings.api_token()
        return settings

    def agent_secrets(self, folder: str) -> dict[str, str]:
        """What a session of the group that begins now gets as `secrets`: with a gateway a placeholder.

        The placeholder is good until Kubernetes ends the session's Job at the latest. Raises SettingsInvalid for a file
        that cannot be read, and for a gateway's key that is not there.
        """
        if not self.config.gateway:
            return self.credentials()
        file = self.gateway_key_dir / names.GATEWAY_KEY_KEY
        if not (key := mounted_secret(file)):
            raise SettingsInvalid(
                f"{file} is missing; mount the Secret {names.GATEWAY_KEY} there, which the stack makes"
            )
        expires = round(time.time() + self.config.start_timeout + self.config.deadline)
        return gateway.agent_secrets(key.encode(), folder, expires)

    def credentials(self) -> dict[str, str]:
        """The model's credentials as they are now; empty without a credentials folder.

        Raises SettingsInvalid for a file that cannot be read.
        """
        found = {key: mounted_secret(self.credentials_dir / key) for key in wire.SECRET_KEYS}
        return {key: value for key, value in found.items() if value}

    def channel_secret(self, key: str) -> str | None:
        """A secret the controller keeps for itself, as it is now; one of `wire.CHANNEL_SECRET_KEYS`.

        Raises SettingsInvalid for a file that cannot be read.
        """
        return mounted_secret(self.credentials_dir / key) or None

    def api_token(self) -> str:
        """The token the API asks for, as it is now. Raises SettingsInvalid when there is none."""
        file = self.api_token_dir / names.API_TOKEN_KEY
        token = mounted_secret(file)
        if not token:
            raise SettingsInvalid(
                f"{file} has no API token, and the API is never served without one; "
                f"put one under {names.API_TOKEN_KEY!r} of the Secret {names.API_TOKEN}"
            )
        return token


def _controller_config(directory: Path) -> ControllerConfig:
    file = directory / names.SETTINGS_KEY
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"{file} cannot be read ({error.strerror}); "
            f"mount the settings ConfigMap there or set {config.ENV_CONFIG_DIR}"
        ) from error
    try:
        return ControllerConfig.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise SettingsInvalid(
            f"{file}: {field}: {first['msg']}; correct it in the stack and run `pulumi up`"
        ) from error


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(
            f"the namespace is not known: {NAMESPACE_FILE} cannot be read; set {config.ENV_NAMESPACE}"
        ) from error


def mounted_secret(file: Path) -> str | None:
    """The content without the line end editors leave behind; None when the file is missing. Raises SettingsInvalid."""
    for _ in range(_LOOKS):
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(f"{file} cannot be read as text; check the Secret it is mounted from") from error
    return None
