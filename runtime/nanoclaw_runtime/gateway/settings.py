"""What the gateway's pod was given. Secrets are read anew for each call: Kubernetes replaces the files in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from nanoclaw_runtime.contract import config, gateway, names, wire
from nanoclaw_runtime.contract.gateway import GatewayConfig
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.settings import mounted_secret

OAUTH_BETA: Final = "oauth-2025-04-20"
"""What the API wants in `anthropic-beta` beside an OAuth token; agents believe in an API key and do not send it."""


@dataclass(frozen=True)
class Credential:
    """The real key, as headers of a call to the model. Never logged, never shown."""

    name: str
    value: str

    @property
    def header(self) -> tuple[str, str]:
        return (
            ("x-api-key", self.value) if self.name == "ANTHROPIC_API_KEY" else ("Authorization", f"Bearer {self.value}")
        )

    @property
    def beta(self) -> str | None:
        return OAUTH_BETA if self.name == "CLAUDE_CODE_OAUTH_TOKEN" else None

    def __repr__(self) -> str:
        return f"Credential({self.name})"


@dataclass(frozen=True)
class GatewaySettings:
    """Everything the gateway's process knows before it serves anybody."""

    config: GatewayConfig
    credentials_dir: Path
    key_dir: Path
    database: Path

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Settings from the environment and the files it points to. Raises SettingsInvalid."""
        return cls(
            config=_config(Path(environ.get(config.ENV_CONFIG_DIR) or config.CONFIG_DIR) / names.SETTINGS_KEY),
            credentials_dir=Path(environ.get(config.ENV_CREDENTIALS_DIR) or config.CREDENTIALS_DIR),
            key_dir=Path(environ.get(gateway.ENV_KEY_DIR) or gateway.KEY_DIR),
            database=Path(environ.get(gateway.ENV_USAGE_DIR) or gateway.USAGE_DIR) / gateway.USAGE_FILE,
        )

    def credential(self) -> Credential:
        """The model's key as it is now, the first of `wire.MODEL_KEYS` there is. Raises SettingsInvalid without one."""
        for name in wire.MODEL_KEYS:
            if value := _secret(self.credentials_dir / name):
                return Credential(name, value)
        raise SettingsInvalid(
            f"there is no key for the model in {self.credentials_dir}; put one of {', '.join(wire.MODEL_KEYS)} into "
            "the stack's credentials"
        )

    def signing_key(self) -> bytes:
        """What placeholders are checked by, as it is now. Raises SettingsInvalid without one."""
        if key := _secret(self.key_dir / names.GATEWAY_KEY_KEY):
            return key.encode()
        raise SettingsInvalid(
            f"{self.key_dir} has no file {names.GATEWAY_KEY_KEY!r}; mount the Secret {names.GATEWAY_KEY} there, which "
            "the stack makes"
        )


def _config(file: Path) -> GatewayConfig:
    try:
        return GatewayConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsInvalid(
            f"{file} cannot be read ({error.strerror}); mount the gateway's ConfigMap there"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise SettingsInvalid(
            f"{file}: {field}: {first['msg']}; correct it in the stack and run `pulumi up`"
        ) from error


def _secret(file: Path) -> str:
    """The content without the line end editors leave behind; empty when the file is missing."""
    value = mounted_secret(file) or ""
    if not (value.isascii() and value.isprintable()):
        raise SettingsInvalid(f"{file} has more than one line, or letters no header can carry; correct the Secret")
    return value
