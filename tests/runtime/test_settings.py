"""What the pod is given, read from real files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from nanoclaw_runtime.contract import config
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.settings import RuntimeSettings


@pytest.fixture
def pod(tmp_path):
    """A folder for each mount, and the environment that points there."""
    folders = {
        config.ENV_CONFIG_DIR: tmp_path / "config",
        config.ENV_CREDENTIALS_DIR: tmp_path / "credentials",
        config.ENV_API_TOKEN_DIR: tmp_path / "token",
    }
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "config/config.json").write_text(json.dumps({"agent": {"image": "echo:1"}}))
    (tmp_path / "token/token").write_text("t0ken\n")
    environ = {key: str(folder) for key, folder in folders.items()}
    return tmp_path, environ | {config.ENV_NAMESPACE: "team", config.ENV_TREE: str(tmp_path / "tree")}


def test_everything_comes_from_where_the_contract_says(pod):
    root, environ = pod
    settings = RuntimeSettings.load(environ)
    assert settings.config.agent.image == "echo:1"
    assert (settings.namespace, settings.tree) == ("team", root / "tree")
    assert settings.database_url == f"sqlite+aiosqlite:///{root}/tree/store/controller.db"
    assert RuntimeSettings.load(environ | {config.ENV_DATABASE_URL: "sqlite+aiosqlite://"}).database_url.endswith("//")


def test_credentials_are_read_anew_and_only_those_agents_know(pod):
    root, environ = pod
    settings = RuntimeSettings.load(environ)
    assert settings.credentials() == {}
    (root / "credentials/ANTHROPIC_API_KEY").write_text("one\n")
    (root / "credentials/ANTHROPIC_BASE_URL").write_text("")
    (root / "credentials/SOMETHING_ELSE").write_text("x")
    assert settings.credentials() == {"ANTHROPIC_API_KEY": "one"}
    (root / "credentials/ANTHROPIC_API_KEY").write_text("two")
    assert settings.credentials() == {"ANTHROPIC_API_KEY": "two"}


def test_the_token_of_a_channel_is_read_anew_and_no_agent_gets_it(pod):
    root, environ = pod
    settings = RuntimeSettings.load(environ)
    assert settings.channel_secret("TELEGRAM_BOT_TOKEN") is None
    for token in ("1:one", "1:two"):
        (root / "credentials/TELEGRAM_BOT_TOKEN").write_text(f"{token}\n")
        assert settings.channel_secret("TELEGRAM_BOT_TOKEN") == token
    assert settings.credentials() == {}


class Replaced(type(Path())):
    """The folder of a Secret that Kubernetes replaces under the first look at any file in it."""

    seen: ClassVar[set[str]] = set()

    def read_text(self, *arguments, **named):
        if self.name not in self.seen:
            self.seen.add(self.name)
            raise FileNotFoundError(self)
        return super().read_text(*arguments, **named)


def test_a_secret_that_is_replaced_under_a_look_is_not_missing(pod):
    root, environ = pod
    (root / "credentials/ANTHROPIC_API_KEY").write_text("one\n")
    Replaced.seen.clear()
    settings = RuntimeSettings.load(environ)
    changed = replace(settings, credentials_dir=Replaced(root / "credentials"), api_token_dir=Replaced(root / "token"))
    assert changed.credentials() == {"ANTHROPIC_API_KEY": "one"}
    assert changed.api_token() == "t0ken"


def test_no_credentials_folder_means_no_credentials(pod):
    root, environ = pod
    (root / "credentials").rmdir()
    assert RuntimeSettings.load(environ).credentials() == {}


def test_a_rotated_token_is_the_token(pod):
    root, environ = pod
    settings = RuntimeSettings.load(environ)
    (root / "token/token").write_text("new")
    assert settings.api_token() == "new"


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        pytest.param("config/config.json", None, "NANOCLAW_CONFIG_DIR", id="no settings"),
        pytest.param("config/config.json", "{", "the document", id="no JSON"),
        pytest.param("config/config.json", '{"agent": {"image": "x"}, "idle": 1}', "idle", id="unknown field"),
        pytest.param("config/config.json", '{"agent": {"image": ""}}', "agent.image", id="field of a field"),
        pytest.param("token/token", None, "nanoclaw-api-token", id="no token"),
        pytest.param("token/token", " \n", "nanoclaw-api-token", id="blank token"),
        pytest.param("token/token", b"\xff\xfe", "as text", id="token of bytes"),
    ],
)
def test_a_mistake_stops_the_start_with_the_file_and_the_remedy(pod, file, content, told):
    root, environ = pod
    target = root / file
    if content is None:
        target.unlink()
    else:
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsInvalid, match=told) as refusal:
        RuntimeSettings.load(environ)
    assert str(target) in str(refusal.value)
    assert ";" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_outside_a_pod_the_namespace_has_to_be_named(pod):
    _, environ = pod
    del environ[config.ENV_NAMESPACE]
    with pytest.raises(SettingsInvalid, match="NANOCLAW_NAMESPACE"):
        RuntimeSettings.load(environ)
