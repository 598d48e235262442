"""Logs are one JSON object a line, whoever writes them; numbers say what the alerts ask for."""

import asyncio
import io
import json
import logging
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from prometheus_client import generate_latest

from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.channels.base import ChannelRefused
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.controller.courier import Courier
from nanoclaw_runtime.controller.status import GroupState
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.store.outbox import Outbox, post
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics, configure_logging
from tests.support.fake_backend import FakeBackend
from tests.support.house import House, started

REFUSED = Diagnosis(FailureKind.IMAGE, "no such image", "It cannot start.")


@pytest.fixture
def log():
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level, processors = root.handlers[:], root.level, structlog.get_config()["processors"]
    configure_logging(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.configure(processors=processors)


def test_our_events_and_those_of_libraries_look_alike(log):
    structlog.get_logger().info("session over", session="s1")
    logging.getLogger("uvicorn.error").warning("slow %s", "client")
    logging.getLogger("aiosqlite").debug("not this")
    ours, theirs = log()
    assert (ours["event"], ours["session"], ours["level"]) == ("session over", "s1", "info")
    assert (theirs["event"], theirs["level"]) == ("slow client", "warning")
    assert ours.keys() >= {"timestamp"} <= theirs.keys()


def test_a_traceback_is_data(log):
    secret = "hunter2"
    try:
        int("bad")
    except ValueError:
        structlog.get_logger().exception("session broke")
    (line,) = log()
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert secret not in json.dumps(line)


def test_the_numbers_have_their_names():
    metrics = Metrics()
    metrics.messages_accepted.inc()
    metrics.sessions_ended.labels(failure="exit").inc()
    text = generate_latest(metrics.registry).decode()
    assert "nanoclaw_messages_accepted_total 1.0" in text
    assert 'nanoclaw_sessions_ended_total{failure="exit"} 1.0' in text


def number(house, name, **labels):
    found = house.host._courier._metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"there is no {name}{labels}"
    return found


async def shows(house, name, condition, **labels):
    while not condition(number(house, name, **labels)):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("failure", ["", *FailureKind])
async def test_every_way_a_session_ends_is_counted_from_nought(house, failure):
    assert number(house, "nanoclaw_sessions_ended_total", failure=failure) == 0


async def test_who_waits_is_seen_and_what_each_waited_is_kept(tmp_path):
    async with House(tmp_path, max_concurrent_sessions=1) as house:
        assert number(house, "nanoclaw_longest_wait_seconds") == 0
        await house.send("hello", "a")
        agent = await house.backend.agent(0)
        await house.send("hello", "b")
        assert number(house, "nanoclaw_groups_waiting") == 1
        await shows(house, "nanoclaw_longest_wait_seconds", lambda seconds: seconds > 0.01)
        await agent.say("hi")
        await agent.exit()
        await house.backend.agent(1)
        assert number(house, "nanoclaw_longest_wait_seconds") == 0
        assert number(house, "nanoclaw_wait_seconds_bucket", le="0.01") == 1
        assert number(house, "nanoclaw_wait_seconds_count") == 2


@pytest.mark.usefixtures("no_retry_by_itself")
async def test_messages_that_are_given_up_are_counted_one_by_one(house):
    for tries in range(1, 7):  # a message during the back-off is a retry at once
        house.backend.refusals.append(REFUSED)
        await house.send("hello")
        await shows(house, "nanoclaw_sessions_ended_total", lambda ended, tries=tries: ended == tries, failure="image")
        await house.until_state(GroupState.RETRYING if tries < 6 else GroupState.QUIET)
    await shows(house, "nanoclaw_messages_given_up_total", lambda messages: messages == 6)


class Impatient(ControllerConfig):
    """Calls an agent silent at once."""

    @property
    def silence_limit(self):
        return 0.05


class Undead(FakeBackend):
    """Its agents do not end because somebody asks."""

    async def add(self, agent):
        agent.undead = sys.maxsize
        await super().add(agent)


async def test_a_session_that_cannot_be_ended_is_overdue_until_it_is(tmp_path):
    house = House(tmp_path, Impatient)
    house.backend = Undead(tmp_path)
    async with house:
        assert number(house, "nanoclaw_session_overdue_seconds") == 0
        await house.send("hello")
        agent = await house.backend.agent(0)
        await shows(house, "nanoclaw_session_overdue_seconds", lambda seconds: seconds > 0.01)
        await agent.exit(137)
        await shows(house, "nanoclaw_session_overdue_seconds", lambda seconds: seconds == 0)


async def test_the_silence_of_a_session_is_told_by_its_state(house):
    house.backend.room.clear()
    await house.send("hello")
    await shows(house, "nanoclaw_session_silent_seconds", lambda seconds: seconds > 0.01, state="starting")
    house.backend.room.set()
    await house.until(lambda: started(house))
    await shows(house, "nanoclaw_session_silent_seconds", lambda seconds: seconds > 0.01, state="working")
    assert number(house, "nanoclaw_session_silent_seconds", state="starting") == 0


class Gate:
    """A network that takes nothing before it is opened, and then refuses."""

    name, connected = "gate", True

    def __init__(self):
        self.opened = asyncio.Event()

    def owns(self, jid):
        return True

    def parts(self, text, *, sender=None):
        return [text]

    async def send(self, jid, part):
        await self.opened.wait()
        raise ChannelRefused("the bot was put out")


async def test_a_text_no_network_takes_grows_old_and_is_counted_when_it_is_given_up(tmp_path):
    store, metrics, gate = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/db"), Metrics(), Gate()
    life = asyncio.create_task(Courier(Outbox(store.database), [gate], metrics=metrics).run())

    def age():
        return metrics.registry.get_sample_value("nanoclaw_outbox_oldest_seconds")

    assert age() == 0
    at = datetime.now(UTC) - timedelta(hours=1)
    await store.database.publish(lambda db: post(db, "tg:1", "main", "hello", origin="test", at=at))
    while age() < 3600:
        await asyncio.sleep(0.005)
    gate.opened.set()
    while age():
        await asyncio.sleep(0.005)
    assert metrics.registry.get_sample_value("nanoclaw_texts_given_up_total") == 1
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    await store.close()


async def test_readiness_is_what_the_last_probe_found(tmp_path):
    house, metrics = House(tmp_path), Metrics()
    await house.begin(declared=False)
    app = create_app(house.controller, lambda: "token", metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as http:
        assert (await http.get("/readyz")).status_code == 503
        assert "nanoclaw_ready 0.0" in (await http.get("/metrics")).text
        await house.declare()
        assert (await http.get("/readyz")).status_code == 200
        assert "nanoclaw_ready 1.0" in (await http.get("/metrics")).text
    await house.end()
