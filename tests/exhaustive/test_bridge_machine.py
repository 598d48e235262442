"""Whatever happens in whatever order: each input is taken once, each request carried out once, none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc.requests import RequestFolder
from tests.support.bridged import PATIENCE, Bridged, Pod, until

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
# A pod that dies in the middle of a TLS handshake leaves it to the loop, which ends with it here.


async def _recorded() -> None:
    """The store has it."""


class Carrying(RuleBasedStateMachine):
    """One session, with a pod and a controller that come and go; the group's folders and the tree stay."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.seen: list[str] = []
        self.asked: list[int] = []
        self.done: dict[str, int] = {}

    def _do(self, life):
        return self._runner.run(life)

    @initialize()
    def begin(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="nanoclaw-bridge-")
        self._runner = asyncio.Runner()

        async def begin() -> None:
            self.bridged = Bridged(Path(self._scratch.name))
            await self.bridged.start()
            self.box = self.bridged.mailbox()
            await self.box.prepare()
            self.pod = Pod(self.bridged.place())
            self.pod.begin()
            await self.pod.ready()

        self._do(begin())
        self.desk = RequestFolder(self.bridged.tree, "main", RequestKind.TASK)

    @rule()
    def send(self) -> None:
        self.sent.append(f"text {len(self.sent)}")
        assert self._do(self.box.send(self.sent[-1], [len(self.sent)], _recorded))

    @rule()
    def agent_takes(self) -> None:
        for file in sorted(self.pod.inputs.glob("*.json"))[:1]:
            self.seen.append(json.loads(file.read_text())["text"])
            file.unlink()

    @rule()
    def agent_asks(self) -> None:
        self.asked.append(len(self.asked))
        aside = self.pod.place.ipc / "tasks/aside"  # as the agent does: nobody sees it half written
        aside.write_text(str(self.asked[-1]))
        aside.rename(aside.with_name(f"{self.asked[-1]}.json"))

    @rule()
    def desk_looks(self) -> None:
        for name in self.desk.names():
            if (file := self.desk.read(name)) is not None:
                self.done.setdefault(file.key, file.document)
                assert self.desk.done(file)

    @rule()
    def time_passes(self) -> None:
        self._do(asyncio.sleep(0.25))

    @rule()
    def loop_turns_once(self) -> None:
        self._do(asyncio.sleep(0.002))

    @rule()
    def the_container_dies(self) -> None:
        async def again() -> None:
            await self.pod.vanish()
            self.pod.begin()

        self._do(again())

    @rule()
    def the_stream_breaks(self) -> None:
        for stream in self.bridged.server._streams.values():
            stream.abort()
        self._do(asyncio.sleep(0))

    @rule()
    def the_controller_dies(self) -> None:
        async def again() -> None:
            await self.bridged.stop()
            await self.bridged.start()

        self._do(again())

    @precondition(lambda self: self.sent)
    @rule()
    def what_is_pending_is_what_was_not_taken(self) -> None:
        try:
            pending = self._do(self.box.pending())
        except OSError:
            return  # the pod was away for too long: nothing is claimed
        assert pending == set(range(len(self.seen) + 1, len(self.sent) + 1))

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        assert self.seen == self.sent[: len(self.seen)]
        assert len(set(self.done.values())) == len(self.done)

    def teardown(self) -> None:
        try:
            if hasattr(self, "pod"):
                self._do(self._finish())
        finally:
            if hasattr(self, "_runner"):
                self._runner.close()
                self._scratch.cleanup()
                gc.collect()  # what was left is found here, not in another test

    async def _finish(self) -> None:
        """Everything that is under way arrives in the end."""

        def over() -> bool:
            self.agent_takes()
            self.desk_looks()
            return len(self.seen) == len(self.sent) and len(self.done) == len(self.asked)

        try:
            await until(over)
            # One that was done on an earlier stream may come again, and is known by its key.
            await until(lambda: self.desk_looks() or not list((self.pod.place.ipc / "tasks").iterdir()))
            assert await self._pending() == set()
            assert self.seen == self.sent
            assert sorted(self.done.values()) == self.asked
        finally:
            await self.pod.end()
            await self.bridged.end()

    async def _pending(self) -> set[int]:
        """Asked again while the pod is on its way back, which may take longer than one question waits."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(OSError):
                    return await self.box.pending()


TestCarrying = Carrying.TestCase
TestCarrying.settings = settings(max_examples=15, stateful_step_count=25, deadline=None, phases=[Phase.generate])
