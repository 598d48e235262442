"""Any order of calls and crashes against a model in three dictionaries: nothing is lost, nothing is said twice.

A crash is a copy of the files as they are on the disk at that moment, opened as a new store.
"""

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.store.records import EventType, RecordedState
from nanoclaw_runtime.store.store import Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FOLDERS = st.sampled_from(["main", "team"])
CRASH = Diagnosis(FailureKind.EXIT, "exited with 1", "It failed.", exit_code=1)


class Delivery(RuleBasedStateMachine):
    sessions = Bundle("sessions")

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="nanoclaw-store-"))
        self.lives = 0
        self.path = self.folder / "0.db"
        self.store = self.run(Store.open(f"sqlite+aiosqlite:///{self.path}"))
        self.state: dict[int, str] = {}
        self.home: dict[int, str] = {}
        self.by_client: dict[tuple[str, str], int] = {}
        self.turns: dict[str, list[list[int]]] = {}
        self.group: dict[str, str] = {}
        self.said: list[tuple[str, int]] = []
        self.outputs: dict[str, int] = {}

    def run(self, awaitable):
        return self.runner.run(awaitable)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    @rule(folder=FOLDERS, client=st.one_of(st.none(), st.sampled_from("ab")))
    def accept(self, folder, client) -> None:
        known = self.by_client.get((folder, client)) if client else None
        message, new = self.run(
            self.store.add_message(folder, "x", sender="u", sender_name="U", client_id=client, at=NOW)
        )
        assert new is (known is None)
        if not new:
            assert message.id == known
            return
        assert message.id > max(self.state, default=0)
        self.state[message.id], self.home[message.id] = "waiting", folder
        if client:
            self.by_client[folder, client] = message.id

    @rule(target=sessions, folder=FOLDERS)
    def begin(self, folder):
        session = f"s{len(self.group)}"
        numbers = self.waiting(folder)
        self.run(self.store.begin_session(SessionRef(folder, session), numbers, at=NOW))
        self.group[session], self.outputs[session] = folder, 0
        self.turns[session] = [numbers] if numbers else []
        self.state.update(dict.fromkeys(numbers, "given"))
        return session

    @rule(session=sessions)
    def start(self, session) -> None:
        if session in self.turns:
            self.run(self.store.session_started(session, at=NOW))

    @rule(session=sessions)
    def give(self, session) -> None:
        if session in self.turns and (numbers := self.waiting(self.group[session])):
            self.run(self.store.give(session, numbers))
            self.turns[session].append(numbers)
            self.state.update(dict.fromkeys(numbers, "given"))

    @rule(session=sessions)
    def take_back(self, session) -> None:
        if self.turns.get(session):
            numbers = self.turns[session].pop()
            self.run(self.store.take_back(session, numbers))
            self.state.update(dict.fromkeys(numbers, "waiting"))

    @rule(
        session=sessions,
        repeat=st.booleans(),
        status=st.sampled_from(OutputStatus),
        result=st.sampled_from([None, "r"]),
        agent=st.sampled_from([None, "c1"]),
    )
    def output(self, session, repeat, status, result, agent) -> None:
        ordinal = max(0, self.outputs[session] - repeat)
        printed = ContainerOutput(status=status, result=result, new_session_id=agent)
        event = self.run(self.store.commit_output(session, ordinal, printed, result, at=NOW))
        if session not in self.turns or ordinal < self.outputs[session]:
            assert event is None
            return
        self.outputs[session] += 1
        finished: list[int] = []
        if status is OutputStatus.SUCCESS and (result or agent) and self.turns[session]:
            finished = self.turns[session].pop(0)
            self.state.update(dict.fromkeys(finished, "done"))
        if result:
            assert event.payload["messages"] == finished
            self.said.append((session, ordinal))

    @rule(session=sessions, failure=st.sampled_from([None, CRASH]))
    def end(self, session, failure) -> None:
        unfinished = sorted(number for turn in self.turns.pop(session, []) for number in turn)
        assert self.run(self.store.end_session(session, failure=failure, at=NOW)) == unfinished
        self.state.update(dict.fromkeys(unfinished, "waiting"))

    @rule(folder=FOLDERS)
    def give_up(self, folder) -> None:
        numbers = self.waiting(folder)
        self.run(self.store.fail_messages(folder, numbers, "sorry", at=NOW))
        self.state.update(dict.fromkeys(numbers, "failed"))

    @precondition(lambda self: self.lives < 4)
    @rule()
    def crash(self) -> None:
        self.lives += 1
        copy = self.folder / f"{self.lives}.db"
        for suffix in ("", "-wal"):
            if (source := self.path.with_name(self.path.name + suffix)).exists():
                shutil.copy(source, copy.with_name(copy.name + suffix))
        self.run(self.store.close())
        self.path = copy
        self.store = self.run(Store.open(f"sqlite+aiosqlite:///{copy}"))

    def waiting(self, folder: str) -> list[int]:
        return [n for n, state in sorted(self.state.items()) if state == "waiting" and self.home[n] == folder]

    @invariant()
    def every_message_is_where_the_model_has_it(self) -> None:
        if not hasattr(self, "store"):
            return
        kept = [m for folder in ("main", "team") for m in self.run(self.store.history(folder, limit=10_000))]
        assert {message.id: message.state.value for message in kept} == self.state
        open_sessions = {record.id for record in self.run(self.store.open_sessions())}
        assert open_sessions == set(self.turns)
        assert all((message.session in open_sessions) for message in kept if message.state == "given")
        for folder in ("main", "team"):
            assert [message.id for message in self.run(self.store.waiting(folder))] == self.waiting(folder)

    @invariant()
    def every_output_was_said_once(self) -> None:
        if not hasattr(self, "store"):
            return
        events = self.run(self.store.events(after=0, folder=None, limit=10_000))
        answers = [event.payload for event in events if event.type is EventType.ANSWER]
        assert [(answer["session"], answer["ordinal"]) for answer in answers] == self.said
        for session, count in self.outputs.items():
            assert self.run(self.store.session(session)).outputs == count
            assert (self.run(self.store.session(session)).state in tuple(RecordedState)[:2]) is (session in self.turns)


Delivery.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestDelivery = Delivery.TestCase
