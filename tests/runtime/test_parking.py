"""Parking by its doors: real folders and store, scripted agents, and a clock that is set by the test."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest

from nanoclaw_runtime.contract.config import (
    AgentSettings,
    ControllerConfig,
    GroupSpec,
    ParkingSettings,
    Transport,
    Warm,
)
from nanoclaw_runtime.controller import parking
from nanoclaw_runtime.controller.parking import Means, Parking
from nanoclaw_runtime.controller.status import Warmth
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef, SessionSpec
from nanoclaw_runtime.domain.parking import LONGEST_WAIT, Why
from nanoclaw_runtime.manifests.identity import fingerprint
from nanoclaw_runtime.telemetry import Metrics
from tests.support.fake_backend import FakeBackend
from tests.support.plans import ready

NOW = 1_800_000_000.0
QUOTA = Diagnosis(FailureKind.QUOTA, "exceeded quota: pods", "No room.")
IMAGE = Diagnosis(FailureKind.IMAGE, "no such image", "It cannot start.")


class Yard:
    """Parking for the groups a, b and c; all were used lately, a last."""

    def __init__(self, tree, pods=3, **config):
        self.tree, self.now, self.image, self.sessions = tree, NOW, "agent:1", 0
        self.backend, self.metrics = FakeBackend(tree, parks=True), Metrics()
        self.config = ControllerConfig(
            agent=AgentSettings(image=self.image), parking=ParkingSettings(pods=pods), **config
        )
        self.groups = {folder: GroupSpec(folder=folder, name=folder.upper()) for folder in "abc"}
        self.used = {folder: self.at(-ago) for ago, folder in enumerate("abc")}
        self.due, self.busy, self.swept = {}, set(), []
        self.broken, self.looks = None, 0
        self.plans = asyncio.Event()
        self.plans.set()

    def at(self, seconds):
        return datetime.fromtimestamp(self.now, UTC) + timedelta(seconds=seconds)

    async def __aenter__(self):
        self.begin()
        return self

    async def __aexit__(self, *_):
        await self.end()

    def begin(self, adopt=()):
        means = Means(
            config=self.config,
            backend=self.backend,
            tree=self.tree,
            metrics=self.metrics,
            groups=self.groups.values,
            busy=self.busy.__contains__,
            sweep=self.sweep,
            new_session=self.new_session,
            plan=self.plan,
            fingerprint=fingerprint,
            used=self.last_messages,
            due=self.next_tasks,
        )
        self.parking = Parking(means, now=lambda: self.now)
        self.adopted = [self.parking.adopt(running) for running in adopt]
        self._life = asyncio.create_task(self.parking.run())

    async def end(self):
        self._life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life

    async def sweep(self, folder):
        self.swept.append(folder)

    def new_session(self):
        self.sessions += 1
        return f"s{self.sessions}"

    async def plan(self, group, session):
        await self.plans.wait()
        agent = self.config.agent.model_copy(update={"image": self.image})
        config = self.config.model_copy(update={"agent": agent})
        return SessionPlan(SessionRef(group.folder, session), config, parked=True)

    async def last_messages(self):
        self.looks += 1
        if self.broken:
            raise self.broken
        return self.used

    async def next_tasks(self, until):
        return {folder: due for folder, due in self.due.items() if due <= until}

    def parked(self):
        """Folders with a pod that is parked."""
        return sorted(agent.ref.folder for agent in self.backend.parked.values() if agent.exit_code is None)

    async def until(self, condition):
        while not condition():
            self.parking.changed()
            await asyncio.sleep(0.005)

    async def until_parked(self, *folders):
        await self.until(lambda: self.parked() == list(folders))

    async def looked(self):
        """Return when everything was looked at again, and what was decided is done."""
        before = self.looks
        await self.until(lambda: self.looks > before + 2)

    async def starts(self, folder, session):
        plan = await self.plan(self.groups[folder], session)
        return await self.backend.start(SessionSpec(plan, ready(b"{}")))

    def number(self, name, **labels):
        generate_latest(self.metrics.registry)
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def yard(tmp_path):
    async with Yard(tmp_path) as yard:
        yield yard


# Parking


async def test_the_groups_that_were_used_last_are_parked_for_within_the_budget(tmp_path):
    async with Yard(tmp_path, pods=2) as yard:
        await yard.until_parked("a", "b")
        await yard.looked()
        assert yard.parked() == ["a", "b"]
        assert yard.number("nanoclaw_parked_agents", state="waiting") == 2


async def test_a_task_that_comes_near_has_its_group_parked_for(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        await yard.until_parked("a")
        yard.due["c"] = yard.at(250)
        await yard.until_parked("c")
        assert yard.number("nanoclaw_parking_dropped_total", why="yields") == 1


async def test_without_a_budget_nothing_is_asked(tmp_path):
    async with Yard(tmp_path, pods=0) as yard:
        yard.parking.changed()
        assert yard.parking.take("a") is None
        assert yard.number("nanoclaw_parking_misses_total") == 0
        assert not yard.looks


async def test_a_backend_that_parks_nothing_is_not_asked_again(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        yard.backend.parks = False
        await yard.until(lambda: yard.backend.asked)
        yard.parking.changed()
        yard.now += 3600
        assert yard.parking.take("a") is None
        assert (len(yard.backend.asked), yard.number("nanoclaw_parking_failed_total")) == (1, 0)


async def test_with_a_bridge_the_pod_makes_its_own_folders(tmp_path):
    async with Yard(tmp_path, transport=Transport.BRIDGE) as yard:
        await yard.until_parked("a", "b", "c")
        assert not list(tmp_path.iterdir())


async def test_warmth_is_what_the_next_session_finds(tmp_path):
    yard = Yard(tmp_path)
    yard.backend.compiling.add("a")
    async with yard:
        await yard.until_parked("a", "b", "c")
        assert [yard.parking.warmth(folder) for folder in "abx"] == [Warmth.STARTING, Warmth.WAITING, Warmth.NONE]


# Taking


async def test_a_session_gets_the_parked_agent_and_the_group_a_new_one_when_it_is_over(yard):
    await yard.until_parked("a", "b", "c")
    session = yard.parking.take("a")
    yard.busy.add("a")
    await yard.parking.settled("a")
    agent = await yard.starts("a", session)
    assert agent.parked
    assert not yard.parking.owns(session)
    await yard.looked()
    assert yard.parked() == ["b", "c"]
    await agent.exit()
    yard.busy.clear()
    await yard.until_parked("a", "b", "c")
    assert yard.parking.take("a") not in {None, session}
    assert yard.number("nanoclaw_parking_hits_total") == 2


async def test_a_session_without_a_parked_agent_is_a_miss(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        await yard.until_parked("a")
        assert yard.parking.take("b") is None
        assert yard.number("nanoclaw_parking_misses_total") == 1


async def test_an_agent_that_compiles_is_better_than_none(tmp_path):
    yard = Yard(tmp_path)
    yard.backend.compiling.add("a")
    async with yard:
        await yard.until_parked("a", "b", "c")
        assert yard.parking.take("a") is not None


async def test_taken_while_it_is_being_parked_it_is_there_once_all_is_settled(tmp_path):
    yard = Yard(tmp_path)
    yard.backend.park_room.clear()
    async with yard:
        await yard.until(lambda: [plan for plan in yard.backend.asked if plan.ref.folder == "a"])
        session = yard.parking.take("a")
        yard.busy.add("a")
        settled = asyncio.create_task(yard.parking.settled("a"))
        await yard.looked()
        assert not settled.done()
        yard.backend.park_room.set()
        await settled
        assert (await yard.starts("a", session)).parked


async def test_taken_before_its_pod_is_asked_for_the_session_starts_it_itself(tmp_path):
    yard = Yard(tmp_path)
    yard.plans.clear()
    async with yard:
        await yard.until(lambda: yard.parking.warmth("a") is Warmth.STARTING)
        session = yard.parking.take("a")
        yard.busy.add("a")
        yard.plans.set()
        await yard.parking.settled("a")
        assert session not in {plan.ref.session for plan in yard.backend.asked}
        assert not (await yard.starts("a", session)).parked


async def test_a_dead_agent_is_not_taken_and_is_gone_when_all_is_settled(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    dead = next(agent for agent in yard.backend.parked.values() if agent.ref.folder == "a")
    await dead.exit(1)
    assert yard.parking.take("a") is None
    yard.busy.add("a")
    await yard.parking.settled("a")
    assert dead.stopped
    assert not yard.parking.owns(dead.ref.session)
    await yard.starts("a", "new")


async def test_a_session_does_not_wait_for_an_agent_on_a_lost_node(yard, monkeypatch):
    """Nobody there says that it is gone, and it is told so for a minute each time."""
    monkeypatch.setattr(parking, "GONE_WITHIN", 0.05)
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    lost = next(agent for agent in yard.backend.parked.values() if agent.ref.folder == "a")
    silence = asyncio.Event()

    async def stop(*, grace):
        lost.stopped = True
        await silence.wait()

    lost.stop = stop
    yard.groups["a"] = yard.groups["a"].model_copy(update={"warm": Warm.NEVER})
    await yard.until(lambda: lost.stopped)
    assert yard.parking.take("a") is None
    async with asyncio.timeout(20):
        await yard.parking.settled("a")
    assert yard.parking.owns(lost.ref.session)  # it is told again


# Dropping


async def test_scale_to_zero(yard):
    await yard.until_parked("a", "b", "c")
    yard.now += 3599
    await yard.until_parked("a", "b")
    yard.now += 3599
    await yard.until_parked()
    assert yard.number("nanoclaw_parking_dropped_total", why="unused") == 3


async def test_an_agent_of_an_older_image_is_replaced(yard):
    await yard.until_parked("a", "b", "c")
    before = set(yard.backend.parked)
    yard.image = "agent:2"
    yard.now += 31
    await yard.until(lambda: yard.parked() == list("abc") and len(yard.backend.asked) == 6)
    assert not before & {session for session, agent in yard.backend.parked.items() if agent.exit_code is None}
    assert yard.number("nanoclaw_parking_dropped_total", why="stale") == 3


async def test_the_agent_of_a_group_that_went_or_is_never_to_be_warm_goes_too(yard):
    await yard.until_parked("a", "b", "c")
    del yard.groups["a"]
    yard.groups["b"] = yard.groups["b"].model_copy(update={"warm": Warm.NEVER})
    await yard.until_parked("c")


async def test_an_agent_that_dies_is_replaced_behind_a_back_off(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    await next(agent for agent in yard.backend.parked.values() if agent.ref.folder == "a").exit(1)
    await yard.until(lambda: yard.number("nanoclaw_parking_dropped_total", why="dead") == 1)
    await yard.looked()
    assert yard.parked() == ["b", "c"]
    yard.now += 30
    await yard.until_parked("a", "b", "c")


async def test_an_agent_that_never_waits_is_dropped_and_nothing_is_parked_for_a_while(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        yard.backend.compiling.add("a")
        await yard.until_parked("a")
        yard.now += 121
        await yard.until_parked()
        await yard.looked()
        assert yard.parked() == []
        yard.backend.compiling.clear()
        yard.now += 30
        await yard.until_parked("a")
        assert yard.number("nanoclaw_parking_dropped_total", why="late") == 1


async def test_an_agent_that_does_not_go_keeps_its_place_and_is_told_again(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        await yard.until_parked("a")
        await yard.looked()
        (agent,) = yard.backend.parked.values()
        agent.undead = 1
        yard.groups["a"] = yard.groups["a"].model_copy(update={"warm": Warm.NEVER})
        await yard.until(lambda: agent.stopped)
        await yard.looked()
        assert (yard.parked(), yard.parking.take("a"), yard.parking.warmth("a")) == (["a"], None, Warmth.NONE)
        yard.now += 30
        await yard.until_parked("b")


# Without room


async def test_when_the_quota_is_used_up_nothing_is_parked_for_a_while(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        yard.backend.park_refusals = [QUOTA, QUOTA]
        await yard.until(lambda: len(yard.backend.asked) == 1)
        await yard.looked()
        yard.now += 30
        await yard.until(lambda: len(yard.backend.asked) == 2)
        yard.now += 59
        await yard.looked()
        assert len(yard.backend.asked) == 2
        yard.now += 1
        await yard.until_parked("a")
        assert yard.number("nanoclaw_parking_failed_total") == 2


async def test_a_group_for_which_parking_fails_does_not_keep_the_others_cold(tmp_path):
    async with Yard(tmp_path, pods=2) as yard:
        yard.backend.park_refusals = [IMAGE]
        await yard.until(lambda: len(yard.parked()) == 2)
        others = sorted({"a", "b", "c"} - {yard.backend.asked[0].ref.folder})
        yard.now += 30
        await yard.looked()
        assert yard.parked() == others
        assert yard.number("nanoclaw_parking_failed_total") == 1


async def test_room_is_made_by_the_least_valuable_agent_of_another_group(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    assert await yard.parking.make_room("c")
    assert yard.parked() == ["a", "c"]
    await yard.looked()
    assert yard.parked() == ["a", "c"]
    assert await yard.parking.make_room("c")
    assert not await yard.parking.make_room("c")
    yard.now += 30
    await yard.until_parked("a", "b", "c")


async def test_an_agent_that_does_not_go_makes_no_room(tmp_path):
    async with Yard(tmp_path, pods=1) as yard:
        await yard.until_parked("a")
        await yard.looked()
        (agent,) = yard.backend.parked.values()
        agent.undead = 1
        assert not await yard.parking.make_room("b")


# Processes come and go


async def test_the_next_process_takes_up_what_was_parked(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    sessions = set(yard.backend.parked)
    await yard.end()
    assert yard.parked() == ["a", "b", "c"]
    yard.begin(await yard.backend.running())
    await yard.looked()
    assert yard.adopted == [True, True, True]
    assert set(yard.backend.parked) == sessions
    assert yard.parking.take("b") in sessions


async def test_the_next_process_replaces_what_would_be_made_differently(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    await yard.end()
    yard.image = "agent:2"
    yard.begin(await yard.backend.running())
    await yard.until(lambda: yard.parked() == list("abc") and len(yard.backend.asked) == 6)


@pytest.mark.parametrize(("compiling", "seconds", "why"), [(True, 200, Why.LATE), (False, LONGEST_WAIT + 1, Why.OLD)])
async def test_an_agent_that_is_taken_up_is_as_old_as_its_pod(yard, compiling, seconds, why):
    """Else a controller that starts again every now and then waits for ever for a pod without a node."""
    await yard.until_parked("a", "b", "c")
    await yard.end()
    late, *young = yard.backend.parked.values()
    late.created, young[0].created = yard.at(-seconds), yard.at(-1)
    yard.backend.compiling |= {late.ref.folder} if compiling else set()
    yard.begin(await yard.backend.running())
    await yard.until(lambda: late.stopped)
    assert yard.number("nanoclaw_parking_dropped_total", why=why) == 1
    assert not any(each.stopped for each in young)


async def test_a_second_agent_of_a_group_is_not_taken_up(yard):
    await yard.until_parked("a", "b", "c")
    one = next(iter(yard.backend.parked.values()))
    assert not yard.parking.adopt(one)


async def test_what_was_parked_goes_when_the_stack_parks_no_more(yard):
    await yard.until_parked("a", "b", "c")
    await yard.looked()
    await yard.end()
    yard.config = yard.config.model_copy(update={"parking": ParkingSettings(pods=0)})
    yard.begin(await yard.backend.running())
    await yard.until_parked()


async def test_nothing_is_begun_any_more_while_what_is_under_way_is_undone(yard):
    """Sessions and exports go on for as long as that takes."""
    await yard.until_parked("a", "b", "c")
    asked, ends, undone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def prepare(_plan):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.set()
            await undone.wait()

    yard.backend.prepare = prepare
    assert yard.parking.take("a")
    await asked.wait()
    ending = asyncio.create_task(yard.end())
    await ends.wait()
    await next(agent for agent in yard.backend.parked.values() if agent.ref.folder == "b").exit(1)
    yard.groups["d"] = GroupSpec(folder="d", name="D")
    try:
        assert (yard.parking.take("b"), yard.parking.wanted("d")) == (None, None)
    finally:
        undone.set()
        await ending


@pytest.mark.parametrize(
    "error", [SessionFailed("s", IMAGE), RuntimeError("our own mistake")], ids=["expected", "unexpected"]
)
async def test_a_look_that_breaks_ends_nothing(yard, error):
    yard.broken = error
    await yard.looked()
    yard.broken = None
    await yard.until_parked("a", "b", "c")
