"""Parked agents that are needed for files: lent by the clock of a test, beside those that wait for a session."""

import asyncio

import pytest

from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.controller.reservations import LENT, Reservations
from nanoclaw_runtime.controller.status import Warmth
from nanoclaw_runtime.domain.errors import TransferRefused
from tests.runtime.test_parking import QUOTA, Yard


@pytest.fixture
async def yard(tmp_path):
    """One that parks for nobody by itself."""
    async with Yard(tmp_path, pods=0, transport=Transport.BRIDGE) as yard:
        yield yard


async def lent_to(yard, folder):
    """An agent that was wanted, and is not held any more."""
    with yard.parking.reservations.lent(folder):
        agent = yard.parking.wanted(folder)
        await yard.until_parked(folder)
    return agent


async def test_an_agent_that_is_lent_stays_until_nobody_came_for_a_while(yard):
    await lent_to(yard, "a")
    yard.now += LENT - 1
    yard.parking.changed()
    await yard.looked()
    assert yard.parked() == ["a"]
    yard.now += 2
    yard.parking.changed()
    await yard.until_parked()


async def test_whoever_holds_one_keeps_it_for_as_long_as_that_takes(yard):
    with yard.parking.reservations.lent("a"):
        await lent_to(yard, "a")
        yard.now += 10 * LENT
        yard.parking.changed()
        await yard.looked()
        assert yard.parked() == ["a"]
    assert yard.parking.take("a") is not None


async def test_one_is_enough_for_everybody_who_wants_it(yard):
    first = await lent_to(yard, "a")
    assert yard.parking.wanted("a") is first
    assert len(yard.backend.asked) == 1


async def test_an_agent_that_dies_is_replaced_though_it_is_lent(yard):
    with yard.parking.reservations.lent("a"):
        first = yard.parking.wanted("a")
        await yard.until_parked("a")
        assert yard.parking.warmth("a") is Warmth.WAITING
        await yard.backend.parked[first.session].exit(1)
        await yard.until(lambda: yard.parking.wanted("a") not in {first, None})
        await yard.until_parked("a")
        assert first.over


async def test_an_agent_that_could_not_be_parked_says_why(yard):
    yard.backend.park_refusals = [QUOTA]
    agent = yard.parking.wanted("a")
    await yard.until(lambda: agent.failed)
    assert (QUOTA.operator in agent.failed, agent.over) == (True, True)


async def test_no_room_is_made_by_an_agent_that_is_lent(yard):
    await lent_to(yard, "a")
    assert not await yard.parking.make_room("b")
    yard.now += LENT + 1
    assert await yard.parking.make_room("b")


async def test_an_agent_that_is_not_to_be_trusted_any_more_goes_though_it_is_lent(yard):
    with yard.parking.reservations.lent("a"):
        yard.parking.wanted("a")
        await yard.until_parked("a")
        yard.parking.discard("a")
        await yard.until_parked()


async def test_sessions_begin_behind_what_keeps_them_away_and_nothing_keeps_away_one_that_begins():
    reservations, begun = Reservations(lambda: 0.0), []

    async def session():
        async with reservations.beginning("a"):
            begun.append("a")

    with reservations.quiet("a"):
        waiting = asyncio.create_task(session())
        await asyncio.sleep(0)
        with pytest.raises(TransferRefused, match="just being started"), reservations.quiet("a"):
            pass
        async with reservations.beginning("b"):
            begun.append("b")
        assert begun == ["b"]
    await waiting
    assert begun == ["b", "a"]
    with reservations.quiet("a"):
        pass


async def test_a_session_that_gives_up_waiting_keeps_nobody_away():
    reservations = Reservations(lambda: 0.0)

    async def session():
        async with reservations.beginning("a"):
            pass

    with reservations.quiet("a"):
        waiting = asyncio.create_task(session())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    with reservations.quiet("a"):
        pass
