"""Sessions, their outputs and the groups' memory of them: the statements, within a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.errors import Diagnosis, StoreFailed
from nanoclaw_runtime.domain.lifetime import ends_turn
from nanoclaw_runtime.domain.model import SessionKind, SessionRef
from nanoclaw_runtime.store import intake, outbox
from nanoclaw_runtime.store.records import (
    FIRST_TURN,
    OPEN_STATES,
    Event,
    EventType,
    RecordedState,
    SessionRecord,
)
from nanoclaw_runtime.store.rows import read_session, read_sessions
from nanoclaw_runtime.store.schema import groups_state, outputs, sessions


def begin(connection: sa.Connection, ref: SessionRef, numbers: Sequence[int], task: str | None, *, at: datetime) -> int:
    if read_session(connection, ref.session) is not None:
        raise StoreFailed(f"session {ref.session} was begun before; every session needs an id of its own")
    generation = _next_generation(connection, ref.folder)
    connection.execute(
        sa.insert(sessions).values(
            id=ref.session,
            folder=ref.folder,
            kind=ref.kind,
            state=RecordedState.STARTING,
            created=at,
            outputs=0,
            generation=generation,
            task=task,
        )
    )
    intake.hand_over(connection, numbers, ref.folder, ref.session, FIRST_TURN)
    return generation


def started(connection: sa.Connection, session: str, *, at: datetime) -> None:
    record = _open_session(connection, session)
    if record.state is RecordedState.RUNNING:
        return
    _update(connection, session, {"state": RecordedState.RUNNING, "started": at})
    _tell(connection, record, {"state": RecordedState.RUNNING}, at=at)


def give(connection: sa.Connection, session: str, numbers: Sequence[int]) -> int:
    record = _open_session(connection, session)
    turn = intake.next_turn(connection, session)
    intake.hand_over(connection, numbers, record.folder, session, turn)
    return turn


def commit_output(
    connection: sa.Connection,
    session: str,
    ordinal: int,
    output: ContainerOutput,
    *,
    text: str | None,
    jid: str | None,
    at: datetime,
) -> Event | None:
    record = _known_session(connection, session)
    if record.state not in OPEN_STATES or _output_exists(connection, session, ordinal):
        return None
    connection.execute(
        sa.insert(outputs).values(session=session, ordinal=ordinal, status=output.status, text=text, created=at)
    )
    _update(connection, session, {"outputs": sessions.c.outputs + 1, "last_output": at})
    finished = intake.finish_oldest_turn(connection, session) if ends_turn(output) else []
    if output.status is OutputStatus.SUCCESS and output.new_session_id and record.kind is SessionKind.MESSAGES:
        _remember(connection, record.folder, output.new_session_id)
    if text is not None:
        if jid is not None:
            outbox.post(connection, jid, record.folder, text, origin=f"output:{session}:{ordinal}", at=at)
        payload = {"session": session, "ordinal": ordinal, "text": text, "messages": finished}
        return intake.add_event(connection, record.folder, EventType.ANSWER, payload, at=at)
    if finished:
        payload = {"session": session, "messages": finished}
        intake.add_event(connection, record.folder, EventType.DONE, payload, at=at)
    return None


def finish_turns(connection: sa.Connection, session: str, *, at: datetime) -> None:
    record = _open_session(connection, session)
    while finished := intake.finish_oldest_turn(connection, session):
        payload = {"session": session, "messages": finished}
        intake.add_event(connection, record.folder, EventType.DONE, payload, at=at)


def end(connection: sa.Connection, session: str, failure: Diagnosis | None, *, at: datetime) -> list[int]:
    record = _known_session(connection, session)
    if record.state not in OPEN_STATES:
        return []
    if failure is None:
        _update(connection, session, {"state": RecordedState.ENDED, "ended": at})
        _tell(connection, record, {"state": RecordedState.ENDED}, at=at)
    else:
        values = {"state": RecordedState.FAILED, "failure_kind": failure.kind, "detail": failure.operator}
        _update(connection, session, values | {"ended": at})
        told = {"state": RecordedState.FAILED, "failure": failure.kind, "text": failure.chat}
        _tell(connection, record, told, at=at)
    return intake.reclaim(connection, session)


def last_text(connection: sa.Connection, session: str) -> str | None:
    said = sa.select(outputs.c.text).where(outputs.c.session == session, outputs.c.text.is_not(None))
    return connection.scalar(said.order_by(outputs.c.ordinal.desc()).limit(1))


def open_sessions(connection: sa.Connection) -> list[SessionRecord]:
    query = sa.select(sessions).where(sessions.c.state.in_(OPEN_STATES))
    return read_sessions(connection, query.order_by(sessions.c.created, sessions.c.id))


def recent_sessions(connection: sa.Connection, folder: str | None, limit: int) -> list[SessionRecord]:
    query = sa.select(sessions).order_by(sessions.c.created.desc(), sessions.c.id.desc()).limit(limit)
    return read_sessions(connection, query if folder is None else query.where(sessions.c.folder == folder))


def agent_session(connection: sa.Connection, folder: str) -> str | None:
    found: str | None = connection.scalar(
        sa.select(groups_state.c.agent_session).where(groups_state.c.folder == folder)
    )
    return found


def forget_agent_session(connection: sa.Connection, folder: str) -> None:
    _remember(connection, folder, None)


def _output_exists(connection: sa.Connection, session: str, ordinal: int) -> bool:
    query = sa.select(outputs.c.ordinal).where(outputs.c.session == session, outputs.c.ordinal == ordinal)
    return connection.scalar(query) is not None


def _known_session(connection: sa.Connection, session: str) -> SessionRecord:
    record = read_session(connection, session)
    if record is None:
        raise StoreFailed(f"session {session} was never begun; record it before its objects are made")
    return record


def _open_session(connection: sa.Connection, session: str) -> SessionRecord:
    record = _known_session(connection, session)
    if record.state not in OPEN_STATES:
        raise StoreFailed(f"session {session} has {record.state} and takes no more messages; begin another one")
    return record


def _update(connection: sa.Connection, session: str, values: dict[str, Any]) -> None:
    connection.execute(sa.update(sessions).where(sessions.c.id == session).values(values))


def _tell(connection: sa.Connection, record: SessionRecord, facts: dict[str, Any], *, at: datetime) -> None:
    payload = {"session": record.id, "kind": record.kind} | facts
    intake.add_event(connection, record.folder, EventType.SESSION, payload, at=at)


def _remember(connection: sa.Connection, folder: str, agent_session: str | None) -> None:
    _state(connection, folder, {"agent_session": agent_session})


def _next_generation(connection: sa.Connection, folder: str) -> int:
    _state(connection, folder, {"generation": groups_state.c.generation + 1}, first={"generation": 1})
    query = sa.select(groups_state.c.generation).where(groups_state.c.folder == folder)
    return int(connection.execute(query).scalar_one())


def _state(
    connection: sa.Connection, folder: str, values: dict[str, Any], *, first: dict[str, Any] | None = None
) -> None:
    changed = connection.execute(sa.update(groups_state).where(groups_state.c.folder == folder).values(values))
    if not changed.rowcount:
        connection.execute(sa.insert(groups_state).values(folder=folder, **(first or values)))
