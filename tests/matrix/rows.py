"""What every way to run agents has to do, as a person in the chat sees it; a row of the matrix each.

Agents are the reference agent, so a message says what its agent does: `sleep 3; echo done`. Each row has groups of
its own. Besides what a row asserts, each of its messages has to be over exactly once at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.controller.status import SessionState
from nanoclaw_runtime.store.records import EventType
from tests.matrix.place import Place
from tests.matrix.scene import Scene

BIG = 1_000_000
LOOK = 0.05


@dataclass(frozen=True)
class Row:
    name: str
    play: Callable[..., Awaitable[None]]
    """Called with the place and the scenes."""
    groups: tuple[str, ...]
    """Its own, so that no agent of another row is there yet."""
    act: int = 1
    """Rows of one act are played at the same time; those of a later one take away what others stand on."""


async def result(_place: Place, scene: Scene) -> None:
    assert (await scene.say("hello")).payload["text"] == "Echo: hello"


async def follow_up(_place: Place, scene: Scene) -> None:
    first = await scene.say("one")
    second = await scene.say("two")
    assert second.payload["text"] == "Echo: two"
    assert second.payload["session"] == first.payload["session"]


async def idle_close(_place: Place, scene: Scene) -> None:
    answer = await scene.say("hello")
    over = await scene.over(answer.payload["session"])
    assert over.payload["state"] == "ended"


async def agent_exits(_place: Place, scene: Scene) -> None:
    session = await scene.running(await scene.send("sleep 1; exit 1"))
    assert (await scene.over(session)).payload["failure"] == "exit"
    await better(scene)


async def agent_killed(place: Place, scene: Scene) -> None:
    session = await scene.running(await scene.send("sleep 600"))
    await place.kill_agent(session)
    assert (await scene.over(session)).payload["state"] == "failed"
    await better(scene)


async def better(scene: Scene) -> None:
    """The last message of a prompt is what the agent does: this one answers those before it, too."""
    answer = await scene.say("echo better")
    assert answer.payload["text"] == "better"
    assert answer.payload["messages"] == [sent.id for sent in scene.sent]


async def late_message(_place: Place, scene: Scene) -> None:
    """A message that comes when the agent was asked to end and has not ended yet."""
    while True:
        answer = await scene.say("early")
        session = answer.payload["session"]
        while (state := await state_of(scene, session)) not in {SessionState.CLOSING, None}:
            await asyncio.sleep(LOOK)
        late = await scene.send("late")
        answered = await scene.answer(late)
        assert answered.payload["text"] == "Echo: late"
        over = await scene.over(session)
        if state is not None and late.event < over.id:
            assert answered.payload["session"] != session
            return


async def state_of(scene: Scene, session: str) -> SessionState | None:
    with contextlib.suppress(CommandFailed):
        return next((each.state for each in await scene.remote.sessions() if each.session == session), None)
    return SessionState.STARTING


async def stop(_place: Place, scene: Scene) -> None:
    session = await scene.running(await scene.send("sleep 600"))
    await scene.remote.stop(session)
    assert (await scene.over(session)).payload["failure"] == "stopped"
    given_up = await scene.until(lambda event: event.type is EventType.FAILURE)
    assert given_up.payload["messages"] == [scene.sent[0].id]
    assert (await scene.say("hello")).payload["text"] == "Echo: hello"


async def silence(_place: Place, scene: Scene) -> None:
    session = await scene.running(await scene.send("sleep 600"))
    assert (await scene.over(session)).payload["failure"] == "silent"
    await better(scene)


async def big_output(_place: Place, scene: Scene) -> None:
    assert len((await scene.say(f"big {BIG}")).payload["text"]) == BIG


async def five_at_once(_place: Place, *scenes: Scene) -> None:
    sent = [await scene.send("sleep 20; echo done") for scene in scenes]
    answers = await asyncio.gather(*(scene.answer(one) for scene, one in zip(scenes, sent, strict=True)))
    assert [answer.payload["text"] for answer in answers] == ["slept 20 s\ndone"] * len(scenes)
    began = await asyncio.gather(*(scene.began(answer) for scene, answer in zip(scenes, answers, strict=True)))
    assert max(began) < min(answer.created for answer in answers)


async def survives(_place: Place, scene: Scene) -> None:
    first = await scene.say("write notes.txt remember me")
    await scene.over(first.payload["session"])
    second = await scene.say("read notes.txt; history")
    assert second.payload["session"] != first.payload["session"]
    assert second.payload["text"].splitlines() == ["remember me", "1. write notes.txt remember me"]


async def controller_crash(place: Place, scene: Scene) -> None:
    sent = await scene.send("sleep 8; echo finished")
    session = await scene.running(sent)
    await place.kill_controller(scene.group)
    answer = await scene.answer(sent)
    assert answer.payload["text"] == "slept 8 s\nfinished"
    assert answer.payload["session"] == session


async def adopt(place: Place, scene: Scene) -> None:
    """A turn and a follow-up go on over a restart; a longer turn where the machine was too slow for that."""
    for seconds in (12, 60):
        first = await scene.say("hello")
        session = first.payload["session"]
        sent = await scene.send(f"sleep {seconds}; echo meanwhile")
        while await state_of(scene, session) is not SessionState.WORKING:
            await asyncio.sleep(LOOK)
        await place.replace_controller(scene.group)
        again = await scene.send("again")  # accepted as soon as somebody is there
        second, third = await scene.answer(sent), await scene.answer(again)
        assert second.payload["text"] == f"slept {seconds} s\nmeanwhile"
        assert third.payload["text"] == "Echo: again"
        assert second.payload["session"] == session
        if third.payload["session"] == session:
            return
    raise AssertionError("what came while the adopted agent worked was kept for another one")


async def node_crash(place: Place, scene: Scene) -> None:
    async with place.apart():
        sent = await scene.send("sleep 15; echo elsewhere")
        session = await scene.running(sent)
        async with place.without_node_of(session):
            answer = await scene.answer(sent)
    assert answer.payload["text"] == "slept 15 s\nelsewhere"
    assert answer.payload["session"] != session


ROWS = (
    Row("silence limit", silence, ("silent",)),
    Row("result", result, ("main",)),
    Row("follow-up", follow_up, ("follow",)),
    Row("idle close", idle_close, ("idle",)),
    Row("agent exits in mid turn", agent_exits, ("exits",)),
    Row("agent is killed", agent_killed, ("killed",)),
    Row("late message", late_message, ("late",)),
    Row("stop", stop, ("stopped",)),
    Row("output of 1 MB", big_output, ("big",)),
    Row("data survives", survives, ("Data_1",)),
    Row("five groups at once", five_at_once, ("g1", "g2", "g3", "g4", "g5")),
    Row("controller crashes", controller_crash, ("crash",), act=2),
    Row("adopted after a restart", adopt, ("adopt",), act=3),
    Row("node crashes", node_crash, ("g6",), act=4),
)
"""In the order they are begun."""
