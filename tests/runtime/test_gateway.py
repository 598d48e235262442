"""The gateway between real clients and a real server that behaves like the model's API."""

import asyncio
import contextlib
import gzip
import io
import json
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import yarl
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from nanoclaw_runtime.contract.gateway import GatewayConfig, Limits, Price, placeholder
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.gateway.connections import CONNECTIONS
from nanoclaw_runtime.gateway.proxy import BODY_LIMIT
from nanoclaw_runtime.gateway.server import Ports, gateway
from nanoclaw_runtime.gateway.settings import OAUTH_BETA, Credential, GatewaySettings
from tests.runtime.test_settings import Replaced
from tests.support.model_api import KEY, MODEL, ModelApi

SIGNING_KEY = "the installation's own"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PRICES = {"claude-": Price(input=1_000_000, output=1_000_000)}  # a token a dollar


class Gateway:
    """One gateway with its folders, its clock, and a client that speaks as agents do."""

    def __init__(self, folder, upstream, config) -> None:
        self.now = NOON
        for name in ("credentials", "key", "usage"):
            (folder / name).mkdir(exist_ok=True)
        self.credential(ANTHROPIC_API_KEY=KEY, folder=folder)
        (folder / "key/key").write_text(SIGNING_KEY)
        self.settings = GatewaySettings(
            config=GatewayConfig(upstream=upstream, **config),
            credentials_dir=folder / "credentials",
            key_dir=folder / "key",
            database=folder / "usage/usage.db",
        )

    def credential(self, *, folder=None, **given):
        directory = (folder / "credentials") if folder else self.settings.credentials_dir
        for file in directory.iterdir():
            file.unlink()
        for name, value in given.items():
            (directory / name).write_text(f"{value}\n")

    def token(self, group="main", *, key=SIGNING_KEY, hours=1):
        return placeholder(key.encode(), group, int((self.now + timedelta(hours=hours)).timestamp()))

    def headers(self, group="main"):
        return {"x-api-key": self.token(group), "anthropic-version": "2023-06-01"}

    @asynccontextmanager
    async def call(self, text="hello", *, group="main", stream=False, usage=None, headers=None):
        body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": text}]}
        if usage:
            body["metadata"] = {"usage": {"input_tokens": usage[0], "output_tokens": usage[1]}}
        headers = self.headers(group) if headers is None else headers
        async with self.client.post(f"{self.url}/v1/messages?beta=true", json=body, headers=headers) as answer:
            yield answer

    async def ask(self, *args, **more):
        async with self.call(*args, **more) as answer:
            return answer.status, await answer.read()

    async def until_answered(self, url):
        """Whatever a connection that is closed at once makes of it."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.client.head(url) as answer:
                        return answer.status

    async def refused(self, *args, **more):
        """Status and the error in the API's shape."""
        async with self.call(*args, **more) as answer:
            error = await answer.json()
            assert error["type"] == "error"
            return answer.status, error["error"]["type"], error["error"]["message"], answer.headers

    async def counted(self, name, **labels):
        """The sum of a counter over what has these labels."""
        async with self.client.get(f"{self.operations}/metrics") as answer:
            text = await answer.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"nanoclaw_gateway_{name}_total" and labels.items() <= sample.labels.items()
        )


@pytest.fixture
async def api():
    async with ModelApi() as api:
        yield api


@pytest.fixture
def served(tmp_path, api):
    @asynccontextmanager
    async def served(upstream=None, *, drain=0.2, **config):
        made = Gateway(tmp_path, upstream or api.url, {"prices": PRICES} | config)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as made.client,
            gateway(made.settings, lambda: made.now, host="127.0.0.1", ports=Ports(0, 0), drain=drain) as ports,
        ):
            made.url, made.operations = (f"http://127.0.0.1:{port}" for port in (ports.agents, ports.operations))
            yield made

    return served


async def test_a_call_reaches_the_model_with_the_real_key_and_without_the_placeholder(served, api):
    async with served() as gate:
        headers = gate.headers() | {"anthropic-beta": "a,b", "Accept-Encoding": "gzip", "Cookie": "x=1"}
        async with gate.call(headers=headers) as answer:
            assert (answer.status, (await answer.json())["content"]) == (200, [{"text": "hi"}])
        (asked,) = api.asked
    assert (asked.method, asked.path) == ("POST", "/v1/messages?beta=true")
    assert (asked.header("x-api-key"), asked.header("authorization"), asked.header("cookie")) == ([KEY], [], [])
    assert (asked.header("anthropic-beta"), asked.header("anthropic-version")) == (["a,b"], ["2023-06-01"])
    assert asked.header("accept-encoding") == ["identity"]
    assert asked.header("host") == [api.url.removeprefix("http://")]
    assert "nanoclaw-placeholder" not in repr(asked)


async def test_a_stream_arrives_as_it_comes(served, api):
    async with served() as gate, gate.call("hold", stream=True) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        got = b""
        async for chunk in answer.content.iter_any():
            got += chunk
            if got.count(b"content_block_delta") == 6:  # name and type of three events, while the model is held
                api.go.set()
        assert b"message_stop" in got
        assert await gate.counted("tokens", group="main", kind="output") == 20


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_group_used_is_counted_for_it_alone(served, stream):
    async with served() as gate:
        await gate.ask(group="a", usage=(5, 7), stream=stream)
        await gate.ask(group="a", usage=(1, 2), stream=stream)
        await gate.ask(group="b", usage=(100, 0), stream=stream)
        assert await gate.counted("tokens", group="a", kind="input") == 6
        assert await gate.counted("tokens", group="a", kind="output") == 9
        assert await gate.counted("cost_dollars", group="a") == 15
        assert await gate.counted("cost_dollars", group="b") == 100
        assert await gate.counted("requests", group="a", status="200") == 2


async def test_counting_tokens_and_listing_models_are_calls_without_tokens(served, api):
    async with served() as gate:
        async with gate.client.post(f"{gate.url}/v1/messages/count_tokens", json={}, headers=gate.headers()) as answer:
            assert await answer.json() == {"input_tokens": 7}
        for path in ("/v1/models?limit=5", f"/v1/models/{MODEL}"):
            async with gate.client.get(f"{gate.url}{path}", headers=gate.headers()) as answer:
                assert answer.status == 200
        assert await gate.counted("requests", group="main") == 3
        assert await gate.counted("tokens") == 0
    assert [asked.path for asked in api.asked][1:] == ["/v1/models?limit=5", f"/v1/models/{MODEL}"]


async def test_without_any_price_a_model_costs_nothing_and_is_told(served):
    async with served(prices={}) as gate:
        await gate.ask()
        assert await gate.counted("cost_dollars") == 0
        assert await gate.counted("unpriced", model=MODEL) == 1


async def test_the_models_own_failure_is_handed_on_as_it_is(served):
    async with served() as gate, gate.call("status 529") as answer:
        error = await answer.json()
        assert (answer.status, answer.headers["retry-after"]) == (529, "7")
        assert error["error"]["type"] == "overloaded_error"
        assert await gate.counted("requests", group="main", status="529") == 1


async def test_no_cookie_of_one_agent_comes_to_another_and_no_answer_leads_elsewhere(served, api):
    async with served() as gate:
        async with gate.call("cookie") as answer:
            assert ("Set-Cookie" in answer.headers, answer.headers["request-id"]) == (False, "req_1")
        assert (await gate.ask(group="b"))[0] == 200
        assert api.asked[-1].header("cookie") == []
        body = {"model": MODEL, "messages": [{"content": "redirect"}]}
        async with gate.client.post(
            f"{gate.url}/v1/messages", json=body, headers=gate.headers(), allow_redirects=False
        ) as answer:
            assert answer.status == 302
    assert len(api.asked) == 3


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"x-api-key": KEY}, id="the real key"),
        pytest.param({"Authorization": f"Basic {SIGNING_KEY}"}, id="another scheme"),
        pytest.param({"x-api-key": placeholder(b"theirs", "main", 2**33)}, id="another installation's"),
        pytest.param({"x-api-key": placeholder(SIGNING_KEY.encode(), "main", 1_700_000_000)}, id="expired"),
        pytest.param({"x-api-key": "\u00e9" * 99}, id="not ASCII"),
    ],
)
async def test_who_shows_no_valid_placeholder_is_refused_and_nothing_is_asked(served, api, headers):
    async with served() as gate:
        status, kind, message, _ = await gate.refused(headers=headers)
        assert await gate.counted("requests", group="", status="401") == 1
    assert (status, kind, api.asked) == (401, "authentication_error", [])
    assert not any(value in message for value in headers.values())


async def test_a_placeholder_may_come_as_a_bearer_token_and_never_goes_on(served, api):
    async with served() as gate:
        status, _ = await gate.ask(headers={"Authorization": f"bearer {gate.token('a')}"})
        assert (status, await gate.counted("requests", group="a")) == (200, 1)
    assert "placeholder" not in repr(api.asked)


async def raw(url, request, *, first_line=False):
    """The bytes of an answer to exactly these bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    answer = await (reader.readline() if first_line else reader.read())
    writer.close()
    return answer


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files", "/v1/messages/batches", "/v1/organizations/me", "/v1/../admin", "/v1/models/..",
        "/v1/models/%2e%2e",
        "/v1/models/a%2fb", "/v1/models/a/../../x", "//v1/messages", "/v1//messages", "/v1/messages/", "/V1/messages",
        "/v1/models/a%0d%0ax", "/v1/models/..%5cx", "/api/oauth/claude_cli/create_api_key", "/metrics", "/readyz",
        "http://elsewhere.example/v1/files", "/v1/models/a;b", "/v1/models/é", "/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_other_path_reaches_the_model(served, api, path, method):
    async with served() as gate:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {gate.token()}\r\n"
        answer = await raw(gate.url, (head + "Connection: close\r\nContent-Length: 0\r\n\r\n").encode())
    assert answer.split(b" ")[1] in {b"404", b"400", b"405"}
    assert api.asked == []
    assert KEY.encode() not in answer


@pytest.mark.parametrize(
    "line",
    [
        "x-evil: a\r\nx-api-key: stolen",
        "x-evil: a\nx-api-key: stolen",
        "x-evil: a\rx: b",
        "x-evil : a",
        "x evil: a",
        ": a",
    ],
)
async def test_headers_that_hide_others_do_not_get_through(served, api, line):
    async with served() as gate:
        body = b'{"model": "m", "messages": [{"content": "hi"}]}'
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {gate.token()}\r\n{line}\r\n"
        await raw(gate.url, (head + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body)
    assert all(asked.header("x-api-key") == [KEY] for asked in api.asked)


async def test_headers_a_connection_names_as_its_own_and_those_of_a_proxy_stay_behind(served, api):
    async with served() as gate:
        mine = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "X-Forwarded-For": "10.0.0.1", "TE": "trailers"}
        await gate.ask(headers=gate.headers() | mine)
    assert not {"x-mine", "x-forwarded-for", "te"} & {name.lower() for name, _ in api.asked[0].headers}


async def test_a_large_call_and_a_large_answer_pass_whole(served, api):
    async with served() as gate:
        status, body = await gate.ask("big 5000000")
        assert (status, len(json.loads(body)["text"])) == (200, 5_000_000)
        assert await gate.counted("tokens", kind="output") == 20
        large = json.dumps({"model": MODEL, "messages": [{"content": "y" * 20_000_000}]}).encode()
        async with gate.client.post(
            f"{gate.url}/v1/messages", data=io.BytesIO(large), headers=gate.headers()
        ) as answer:
            assert answer.status == 200
    assert api.asked[-1].body == large


async def test_a_call_that_says_it_is_too_large_is_refused_before_it_is_read(served, api):
    async with served() as gate:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {gate.token()}\r\nConnection: close\r\n"
        answer = await raw(
            gate.url, (head + f"Content-Length: {BODY_LIMIT + 1}\r\n\r\n").encode() + b"{", first_line=True
        )
    assert answer.split(b" ")[1] == b"413"
    assert api.asked == []


async def test_a_call_that_turns_out_too_large_is_broken_off(served, api):
    async def endless():
        for _ in range(BODY_LIMIT // 2**20 + 1):
            yield b"x" * 2**20

    async with served() as gate:
        async with gate.client.post(f"{gate.url}/v1/messages", data=endless(), headers=gate.headers()) as answer:
            assert (answer.status, (await answer.json())["error"]["type"]) == (413, "request_too_large")
        assert await gate.counted("requests", group="main", status="413") == 1
    assert api.asked == []


async def test_an_agent_that_goes_away_ends_its_call_to_the_model_and_still_pays(served, api):
    async with served() as gate:
        async with gate.call("hold", stream=True, usage=(50, 9)) as answer:
            await answer.content.readany()
            await api.holding.wait()
        await api.gone.wait()
        while not await gate.counted("requests", group="main"):
            await asyncio.sleep(0.01)
        assert await gate.counted("tokens", group="main", kind="input") == 50
        assert await gate.counted("tokens", group="main", kind="output") == 3  # one a piece: the end was never told


async def test_an_agent_that_goes_away_before_the_answer_ends_its_call_to_the_model(served, api):
    async with served() as gate:
        asking = asyncio.create_task(gate.ask("hold"))
        await api.holding.wait()
        asking.cancel()
        await api.gone.wait()
        while not await gate.counted("requests", group="main", status="gone"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(served, stream):
    async with served() as gate:
        with pytest.raises(aiohttp.ClientPayloadError):
            await gate.ask("cut", stream=stream)
        assert (await gate.ask())[0] == 200


async def test_a_model_that_is_not_there_is_told_in_the_shape_of_its_api(served, api):
    async with served("http://127.0.0.1:1") as gate:
        status, kind, message, _ = await gate.refused()
        assert await gate.counted("requests", group="main", status="502") == 1
    assert (status, kind) == (502, "api_error")
    assert "cannot be reached" in message


async def test_a_group_over_its_calls_a_minute_waits_and_others_do_not(served):
    async with served(limits=Limits(requests_per_minute=2)) as gate:
        assert [(await gate.ask())[0] for _ in range(2)] == [200, 200]
        gate.now += timedelta(seconds=20)
        status, kind, _, headers = await gate.refused()
        assert (status, kind, headers["retry-after"]) == (429, "rate_limit_error", "40")
        assert (await gate.ask(group="b"))[0] == 200
        gate.now += timedelta(seconds=40)
        assert (await gate.ask())[0] == 200
        assert await gate.counted("limited", group="main", limit="requests") == 1


async def test_a_group_with_limits_of_its_own_has_those(served):
    async with served(limits=Limits(tokens_per_minute=1), group_limits={"b": Limits()}) as gate:
        assert [(await gate.ask(group=group))[0] for group in "aabb"] == [200, 429, 200, 200]


async def test_a_day_that_is_used_up_stays_so_after_a_restart_until_midnight(served):
    limits = {"limits": Limits(cost_per_day=10)}
    async with served(**limits) as gate:
        assert [(await gate.ask(usage=(6, 0)))[0] for _ in range(3)] == [200, 200, 429]
    async with served(**limits) as gate:
        status, kind, message, headers = await gate.refused()
        assert (status, kind, headers["x-should-retry"]) == (429, "rate_limit_error", "false")
        assert "costPerDay" in message
        gate.now += timedelta(hours=12)
        assert (await gate.ask(usage=(6, 0)))[0] == 200


async def test_many_groups_at_once_are_each_counted_right(served):
    async with served() as gate:
        calls = [(group, number) for group in range(20) for number in range(5)]
        done = await asyncio.gather(
            *(gate.ask(group=f"g{group}", usage=(group, number), stream=number % 2 == 0) for group, number in calls)
        )
        assert {status for status, _ in done} == {200}
        for group in range(20):
            assert await gate.counted("tokens", group=f"g{group}", kind="input") == 5 * group
            assert await gate.counted("tokens", group=f"g{group}", kind="output") == 0 + 1 + 2 + 3 + 4


async def test_a_key_that_is_replaced_is_used_for_the_next_call(served, api):
    async with served() as gate:
        await gate.ask()
        gate.credential(ANTHROPIC_API_KEY="sk-ant-new")
        await gate.ask()
        gate.credential(CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-x")
        await gate.ask(headers=gate.headers() | {"anthropic-beta": "a"})
        gate.credential(ANTHROPIC_AUTH_TOKEN="theirs")
        await gate.ask()
    assert [asked.header("x-api-key") for asked in api.asked] == [[KEY], ["sk-ant-new"], [], []]
    assert [asked.header("authorization") for asked in api.asked] == [
        [],
        [],
        ["Bearer sk-ant-oat01-x"],
        ["Bearer theirs"],
    ]
    assert [asked.header("anthropic-beta") for asked in api.asked] == [[], [], [f"a,{OAUTH_BETA}"], []]


async def test_without_a_key_it_is_alive_and_not_ready_and_tells_agents_nothing(served, api):
    async with served() as gate:
        assert await ready(gate) == (200, "ok\n")
        gate.credential()
        status, text = await ready(gate)
        assert (status, "ANTHROPIC_API_KEY" in text) == (503, True)
        assert (await gate.refused())[:2] == (503, "api_error")
        async with gate.client.get(f"{gate.operations}/healthz") as answer:
            assert answer.status == 200
    assert api.asked == []


async def ready(gate):
    async with gate.client.get(f"{gate.operations}/readyz") as answer:
        return answer.status, await answer.text()


async def test_an_answer_that_is_compressed_all_the_same_passes_unchanged_and_is_told_as_uncounted(served):
    async with served() as gate:
        status, body = await gate.ask("gzip")
        assert (status, json.loads(gzip.decompress(body))["model"]) == (200, MODEL)
        await gate.ask()
        assert await gate.counted("uncounted", group="main") == 1
        assert await gate.counted("tokens", kind="output") == 20


async def test_a_compressed_call_passes_as_it_came(served, api):
    """Unpacked it is shorter than it says, and the next call to the model would be taken for the rest of it."""
    packed = gzip.compress(json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode())
    async with served() as gate:
        headers = gate.headers() | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with gate.client.post(f"{gate.url}/v1/messages", data=packed, headers=headers) as answer:
            assert answer.status == 200
        assert (await gate.ask(group="other"))[0] == 200
    assert [asked.header("content-length") for asked in api.asked[:1]] == [[str(len(packed))]]
    assert [json.loads(asked.body)["messages"][0]["content"] for asked in api.asked] == ["hi", "hello"]


@pytest.mark.parametrize("port", ["url", "operations"])
async def test_an_address_has_so_many_connections_and_not_more(served, port):
    async with served() as gate:
        where = yarl.URL(getattr(gate, port))
        silent = [await asyncio.open_connection(where.host, where.port) for _ in range(CONNECTIONS)]
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            silent.pop()[1].close()
            await gate.until_answered(f"{where}{'/' if port == 'url' else '/healthz'}")
        finally:
            for _, each in [*silent, (reader, writer)]:
                each.close()


async def test_bytes_that_are_no_http_are_not_worth_a_line_in_the_log(served, caplog):
    async with served() as gate:
        where = yarl.URL(gate.url)
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(b"GET / HTTP/1.1\r\nsecret words\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
    assert caplog.text == ""


async def test_a_model_without_a_price_is_no_way_around_the_days_dollars(served):
    prices = {"cheap-": Price(input=1, output=1), "dear-": Price(input=1_000_000, output=1_000_000)}
    async with served(prices=prices, limits=Limits(cost_per_day=3)) as gate:
        assert (await gate.ask(usage=(1, 2)))[0] == 200
        assert (await gate.refused())[0] == 429
        assert await gate.counted("unpriced", model=MODEL) == 1


async def test_an_operator_is_told_what_was_used_since_a_day_and_agents_are_not(served):
    async with served() as gate:
        await gate.ask(group="a", usage=(1, 2))
        gate.now += timedelta(days=1)
        await gate.ask(group="a", usage=(3, 4))
        await gate.ask(group="b", usage=(5, 6))
        rows = [(row["day"], row["group"], row["input"], row["dollars"]) for row in await used(gate, "2026-11-22")]
        assert rows == [("2026-11-23", "a", 3, 7), ("2026-11-23", "b", 5, 11), ("2026-11-22", "a", 1, 3)]
        assert len(await used(gate, "2026-11-23")) == 2
        for nonsense in ("", "?since=", "?since=today", "?since=2026-11-22';--"):
            async with gate.client.get(f"{gate.operations}/usage{nonsense}") as answer:
                assert answer.status == 400
        async with gate.client.get(f"{gate.url}/usage?since=2026-11-22", headers=gate.headers()) as answer:
            assert answer.status == 404


async def used(gate, since):
    async with gate.client.get(f"{gate.operations}/usage?since={since}") as answer:
        return (await answer.json())["usage"]


async def test_a_client_may_ask_whether_somebody_is_there(served):
    async with served() as gate, gate.client.head(gate.url) as answer:
        assert answer.status == 200


async def test_neither_key_nor_placeholder_nor_text_is_in_logs_metrics_or_answers(served, api, caplog):
    caplog.set_level(logging.DEBUG)
    told = ""
    with capture_logs() as events:
        async with served() as gate:
            for text in ("secret words", "status 500", "cut secret words"):
                try:
                    told += str(await gate.ask(text))
                except aiohttp.ClientError as error:
                    told += repr(error)
            await api.__aexit__()
            told += str(await gate.refused("secret words"))
            gate.credential(ANTHROPIC_API_KEY=f"{KEY}\n{KEY}")
            told += str(await gate.refused("secret words"))
            told += str(await gate.refused("secret words", headers={"x-api-key": gate.token(key="theirs")}))
            told += str(await ready(gate))
            async with gate.client.get(f"{gate.operations}/metrics") as answer:
                told += await answer.text()
            told += repr(gate.settings)
    assert len(events) >= 3
    told += repr(events) + caplog.text
    assert not [word for word in (KEY, "nanoclaw-placeholder-", "secret words", SIGNING_KEY) if word in told]


def test_a_credential_does_not_show_itself():
    assert KEY not in repr(Credential("ANTHROPIC_API_KEY", KEY))


def test_a_key_that_is_replaced_under_a_look_is_not_missing(tmp_path):
    (tmp_path / "ANTHROPIC_API_KEY").write_text("sk-1")
    Replaced.seen.clear()
    settings = GatewaySettings(GatewayConfig(), Replaced(tmp_path), tmp_path, tmp_path)
    assert settings.credential() == Credential("ANTHROPIC_API_KEY", "sk-1")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"two\nlines", "gr\u00fcn".encode()])
def test_a_key_no_header_can_carry_is_refused_without_showing_it(tmp_path, content):
    (tmp_path / "ANTHROPIC_API_KEY").write_bytes(content)
    settings = GatewaySettings(GatewayConfig(), tmp_path, tmp_path, tmp_path)
    with pytest.raises(SettingsInvalid) as refused:
        settings.credential()
    assert "lines" not in str(refused.value).replace("one line", "")


def test_settings_come_from_the_files_a_pod_has(tmp_path):
    environ = {"NANOCLAW_CONFIG_DIR": str(tmp_path), "NANOCLAW_USAGE_DIR": str(tmp_path / "usage")}
    with pytest.raises(SettingsInvalid, match="ConfigMap"):
        GatewaySettings.load(environ)
    (tmp_path / "config.json").write_text('{"upstream": "no url"}')
    with pytest.raises(SettingsInvalid, match="upstream"):
        GatewaySettings.load(environ)
    (tmp_path / "config.json").write_text(GatewayConfig(limits=Limits(cost_per_day=3)).model_dump_json(by_alias=True))
    settings = GatewaySettings.load(environ)
    assert (settings.config.limits.cost_per_day, settings.database) == (3, tmp_path / "usage/usage.db")
