"""A mistake in the settings is refused with its field, its value and the remedy."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, Groups, GroupSpec

AGENT = {"image": "localhost/agent:1"}


def refusal(model: type, **values: object) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"timezone": "Berlin"}, ["timezone", "'Berlin'", "write one like 'Europe/Berlin'"], id="zone"),
        pytest.param({"platform": "docker"}, ["platform", "docker", "'kubernetes' or 'openshift'"], id="platform"),
        pytest.param(
            {"layout": "pergroup"}, ["layout", "pergroup", "'per-type', 'per-group' or 'shared'"], id="layout"
        ),
        pytest.param(
            {"maxConcurrentSessions": 0}, ["maxConcurrentSessions", "0", "greater than or equal to 1"], id="0"
        ),
        pytest.param({"idleTimeout": -1}, ["idleTimeout", "-1", "greater than 0"], id="negative time"),
        pytest.param({"idleTimeOut": 5}, ["idleTimeOut", "5", "not permitted"], id="misspelt"),
        pytest.param({"agent": {"image": ""}}, ["agent.image", "at least 1 character"], id="no image"),
        pytest.param(
            {"agent": AGENT | {"imagePullPolicy": "Sometimes"}}, ["imagePullPolicy", "Sometimes"], id="policy"
        ),
    ],
)
def test_wrong_settings_are_refused(values, said):
    text = refusal(ControllerConfig, **({"agent": AGENT} | values))
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        pytest.param(
            [{"folder": "a/b", "name": "x"}], ["groups.0.folder", "'a/b'", "a folder has 1 to 64"], id="folder"
        ),
        pytest.param([{"folder": "global", "name": "x"}], ["'global'", "reserved"], id="reserved"),
        pytest.param([{"folder": "a", "name": "x"}] * 2, ["'a'", "used twice", "each group needs its own"], id="twice"),
        pytest.param(
            [{"folder": "a", "name": "x", "jid": "j"}, {"folder": "b", "name": "x", "jid": "j"}],
            ["jid 'j'", "used twice"],
            id="same chat",
        ),
        pytest.param([{"folder": "a"}], ["groups.0.name", "Field required"], id="no name"),
    ],
)
def test_wrong_groups_are_refused(groups, said):
    text = refusal(Groups, groups=groups)
    for part in said:
        assert part in text


def test_settings_survive_the_config_map():
    config = ControllerConfig(agent=AgentSettings(image="localhost/agent:1", env={"A": "b"}), timezone="Europe/Berlin")
    assert ControllerConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config


def test_groups_survive_the_config_map_with_their_default_chat():
    groups = Groups(groups=(GroupSpec(folder="main", name="Me"), GroupSpec(folder="Team_42", name="T", jid="1@g.us")))
    again = Groups.model_validate_json(groups.model_dump_json(by_alias=True))
    assert again == groups
    assert [group.jid for group in again.groups] == ["http:main", "1@g.us"]
    assert [group.is_main for group in again.groups] == [True, False]


@pytest.mark.parametrize(("session", "idle", "limit"), [(1800, 1800, 1830), (3600, 1800, 3600), (10, 10, 40)])
def test_the_silence_limit_is_never_below_idle_and_half_a_minute(session, idle, limit):
    config = ControllerConfig(agent=AgentSettings(image="i"), session_timeout=session, idle_timeout=idle)
    assert config.silence_limit == limit


def test_settings_are_frozen():
    config = ControllerConfig(agent=AgentSettings(image="i"))
    with pytest.raises(ValidationError, match="frozen"):
        config.timezone = "Europe/Berlin"
