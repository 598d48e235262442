"""What an agent holds instead of a key opens the gateway for its own group, for a time, and nothing else."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nanoclaw_runtime.contract import names, wire
from nanoclaw_runtime.contract.gateway import (
    BASE_URL,
    GatewayConfig,
    Limits,
    PlaceholderRefused,
    agent_secrets,
    folder_of,
    placeholder,
)

KEY = b"the key of this installation"
folders = st.from_regex(names.FOLDER_PATTERN, fullmatch=True).map(str.strip)
moments = st.integers(0, 10**11)


@given(folders, moments, st.binary(min_size=1), st.integers(1, 10**6))
def test_a_placeholder_tells_its_group_until_it_expires(folder, expires, key, late):
    token = placeholder(key, folder, expires)
    assert folder_of(key, token, expires - 1) == folder
    with pytest.raises(PlaceholderRefused, match="expired"):
        folder_of(key, token, expires + late - 1)


@given(folders, moments, st.data())
def test_a_placeholder_with_any_character_changed_is_refused(folder, expires, data):
    token = placeholder(KEY, folder, expires)
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.characters()) + token[place + 1 :]
    assume(changed != token)
    with pytest.raises(PlaceholderRefused):
        folder_of(KEY, changed, 0)


@given(st.text())
def test_whatever_is_no_placeholder_is_refused(text):
    with pytest.raises(PlaceholderRefused):
        folder_of(KEY, text, 0)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(placeholder(b"of another installation", "main", 2**33), id="another installation's"),
        pytest.param(placeholder(KEY, "a", 2**33).replace("-a.", "-main."), id="another group's name"),
        pytest.param(placeholder(KEY, "a", 1).replace(".1.", ".9999999999."), id="a later end"),
        pytest.param(placeholder(KEY, "a", 2**33) + "\n", id="a line behind it"),
        pytest.param(placeholder(KEY, "a", 2**33)[:-1], id="cut short"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_somebody_made_of_a_placeholder_is_refused_without_repeating_it(token):
    with pytest.raises(PlaceholderRefused) as refused:
        folder_of(KEY, token, 1000)
    assert not token or token not in str(refused.value)


def test_a_placeholder_says_what_it_is_and_fits_the_longest_folder():
    token = placeholder(KEY, "x" * 64, 10**10)
    assert token.startswith("nanoclaw-placeholder-")
    assert folder_of(KEY, token, 0) == "x" * 64


def test_agents_get_the_placeholder_as_a_key_they_know_and_the_gateways_address():
    secrets = agent_secrets(KEY, "main", 2**33)
    assert secrets.keys() <= set(wire.SECRET_KEYS)
    assert secrets["ANTHROPIC_BASE_URL"] == BASE_URL == "http://nanoclaw-gateway:8081"
    assert folder_of(KEY, secrets["ANTHROPIC_API_KEY"], 0) == "main"


def test_a_group_without_limits_of_its_own_has_those_of_all():
    own = Limits(requests_per_minute=1)
    config = GatewayConfig(limits=Limits(cost_per_day=5), group_limits={"a": own})
    assert config.limits_of("a") == own
    assert config.limits_of("b") == Limits(cost_per_day=5)


@pytest.mark.parametrize(
    "upstream", ["https://a.example/v1", "https://user:key@a.example", "https://a.example?x", "ftp://a"]
)
def test_the_upstream_is_an_origin_and_nothing_more(upstream):
    with pytest.raises(ValueError, match="pattern"):
        GatewayConfig(upstream=upstream)
