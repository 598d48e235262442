"""What the controller hands its agents where there is a gateway."""

import time

import pytest

from nanoclaw_runtime.contract import config, gateway
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig
from nanoclaw_runtime.contract.gateway import BASE_URL, PlaceholderRefused, folder_of
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.settings import RuntimeSettings

KEY = b"the key of this installation"


@pytest.fixture
def settings(tmp_path):
    def settings(**given):
        for folder in ("config", "credentials", "api-token", "gateway-key"):
            (tmp_path / folder).mkdir()
        made = ControllerConfig(agent=AgentSettings(image="agent:1"), **given)
        (tmp_path / "config/config.json").write_text(made.model_dump_json(by_alias=True))
        (tmp_path / "credentials/ANTHROPIC_API_KEY").write_text("sk-real")
        (tmp_path / "api-token/token").write_text("token")
        (tmp_path / "gateway-key/key").write_bytes(KEY + b"\n")
        return RuntimeSettings.load(
            {
                config.ENV_CONFIG_DIR: str(tmp_path / "config"),
                config.ENV_CREDENTIALS_DIR: str(tmp_path / "credentials"),
                config.ENV_API_TOKEN_DIR: str(tmp_path / "api-token"),
                gateway.ENV_KEY_DIR: str(tmp_path / "gateway-key"),
                config.ENV_NAMESPACE: "here",
            }
        )

    return settings


def test_with_a_gateway_agents_get_a_placeholder_of_their_group_for_as_long_as_a_session_may_live(settings):
    made = settings(gateway=True, deadline=7200, start_timeout=60)
    secrets = made.agent_secrets("Team_42")
    now = time.time()
    assert secrets.keys() == {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}
    assert secrets["ANTHROPIC_BASE_URL"] == BASE_URL
    assert folder_of(KEY, secrets["ANTHROPIC_API_KEY"], now + 7200) == "Team_42"
    with pytest.raises(PlaceholderRefused):
        folder_of(KEY, secrets["ANTHROPIC_API_KEY"], now + 7300)


def test_without_a_gateway_agents_get_the_key_itself(settings):
    assert settings().agent_secrets("main") == {"ANTHROPIC_API_KEY": "sk-real"}


def test_a_signing_key_that_is_missing_never_means_that_agents_get_the_real_one(settings, tmp_path):
    made = settings(gateway=True)
    (tmp_path / "gateway-key/key").unlink()
    with pytest.raises(SettingsInvalid, match="nanoclaw-gateway-key"):
        made.agent_secrets("main")
