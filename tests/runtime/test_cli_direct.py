"""The command line and a controller it reaches by address: a real server on loopback, no cluster."""

import asyncio
import sys

import pytest

from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.cli.direct import Direct
from nanoclaw_runtime.cli.errors import Away, CommandFailed, NotReachable, Refused
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.telemetry import Metrics
from tests.support.ports import free_port
from tests.support.small_controller import SmallController

TOKEN = "correct-horse"


class Served:
    """A controller's API that can go away and come back at the same address."""

    def __init__(self) -> None:
        self.controller = SmallController()
        self.port = free_port()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def begin(self):
        app = create_app(self.controller, lambda: TOKEN, Metrics())
        self.task = asyncio.create_task(serve_on(app, listen("127.0.0.1", self.port)))

    async def followed(self):
        """Return when somebody follows its events."""
        while not self.controller.followers:
            await asyncio.sleep(0.01)

    async def end(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def served():
    served = Served()
    await served.begin()
    yield served
    await served.end()


@pytest.fixture
async def remote(served):
    async with await Remote.connect(Target(url=served.url, token=TOKEN)) as remote:
        yield remote


async def test_a_message_is_sent_and_seen(served, remote):
    accepted = await remote.send("main", "hällo", sender="ada", client_id="c1")
    assert accepted.created
    assert [message.text for message in await remote.history("main", after=0, limit=10)] == ["hällo"]


async def test_events_go_on_behind_a_restart_of_the_controller(served, remote):
    await served.controller.says("main", "one")
    events = remote.events("main", after=0)
    assert (await anext(events)).payload["text"] == "one"
    await served.end()
    await served.begin()
    await served.controller.says("main", "two")
    assert (await anext(events)).payload["text"] == "two"
    await events.aclose()


async def test_what_happens_while_a_stream_is_lost_before_its_first_event_is_told(served, remote):
    events = remote.events("main", after=None)
    coming = asyncio.create_task(anext(events))
    await served.followed()
    await served.end()
    await served.controller.says("main", "meanwhile")
    await served.begin()
    assert (await coming).payload["text"] == "meanwhile"
    await events.aclose()


async def test_events_go_on_behind_a_controller_that_could_not_serve_for_a_moment(served, remote):
    await served.controller.says("main", "one")
    events = remote.events("main", after=0)
    await anext(events)
    coming = asyncio.create_task(anext(events))
    served.controller.broken = True
    await served.end()
    await served.begin()
    await served.controller.refused.wait()
    served.controller.broken = False
    await served.controller.says("main", "two")
    assert (await coming).payload["text"] == "two"
    await events.aclose()


async def test_a_controller_that_is_away_is_waited_for(served, remote):
    await served.end()
    away = asyncio.Event()
    sending = asyncio.create_task(remote.send("main", "hello", sender="ada", client_id="c1", absent=away.set))
    await away.wait()
    await served.begin()
    assert (await sending).created


async def test_a_refusal_is_in_the_controllers_words(remote):
    with pytest.raises(Refused, match="there is no group 'nope'"):
        await remote.history("nope", after=0, limit=1)


async def test_a_wrong_token_is_told(served):
    async with await Remote.connect(Target(url=served.url, token="wrong")) as remote:
        with pytest.raises(Refused, match="the token is missing or wrong"):
            await remote.groups()


async def test_the_token_is_read_from_its_file(served, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    async with await Remote.connect(Target(url=served.url, token_file=tmp_path / "token")) as remote:
        assert len(await remote.groups()) == 2


async def test_a_token_that_is_nowhere_is_told_with_the_way_to_it(served, tmp_path):
    for file in (None, tmp_path / "nowhere"):
        async with await Remote.connect(Target(url=served.url, token_file=file)) as remote:
            with pytest.raises(CommandFailed, match="NANOCLAW_TOKEN_FILE"):
                await remote.groups()


async def test_nobody_at_the_address_is_told():
    async with await Remote.connect(Target(url="http://127.0.0.1:1", token=TOKEN)) as remote:
        with pytest.raises(Away, match="see whether `nanoclaw host` runs there"):
            await remote.groups()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none_is_told(url):
    with pytest.raises(NotReachable, match="is no address"):
        Direct(url, None)


async def test_a_command_finds_its_way_by_the_environment(served):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from nanoclaw_runtime.cli import main; main()", "groups",
        stdout=asyncio.subprocess.PIPE, env={"NANOCLAW_URL": served.url, "NANOCLAW_TOKEN": TOKEN},
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"main" in out
