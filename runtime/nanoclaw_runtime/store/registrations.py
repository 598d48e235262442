"""Groups that were added while the controller ran; those of the stack are never written down here.

What a group has done and said stays when it goes, so that one that is added again under the same
folder goes on where it was.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from nanoclaw_runtime.domain.tasks import TaskState
from nanoclaw_runtime.store import intake
from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.records import MessageState, Registration
from nanoclaw_runtime.store.schema import messages, registrations, tasks

GONE: Final = "This chat has no assistant any more."
# What a chat is told about messages that waited when its group was removed.


class RegistrationBook:
    """One row a group; folder and jid are each used once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Registration]:
        """In the order of their folders."""
        query = sa.select(registrations).order_by(registrations.c.folder)

        def work(connection: sa.Connection) -> list[Registration]:
            return [Registration(**row) for row in connection.execute(query).mappings()]

        return await self._database.transaction(work)

    async def put(self, registration: Registration) -> None:
        """Add it, or write it anew. Raises StoreFailed when another folder has its jid."""
        row = {
            "jid": registration.jid,
            "spec": registration.spec,
            "added": registration.added,
            "added_by": registration.added_by,
        }
        ours = registrations.c.folder == registration.folder

        def work(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(registrations).where(ours).values(row)).rowcount:
                connection.execute(sa.insert(registrations).values(folder=registration.folder, **row))

        await self._database.transaction(work)

    async def remove(self, folder: str, *, force: bool, jid: str | None = None, at: datetime) -> int:
        """How many messages wait in the group, which is removed if there are none or with `force`.

        The messages are then given up visibly, in the chat `jid` of a network too, and its tasks pause.
        """
        waits = (messages.c.folder == folder, messages.c.state == MessageState.WAITING)

        def work(connection: sa.Connection) -> int:
            waiting = list(connection.scalars(sa.select(messages.c.id).where(*waits).order_by(messages.c.id)))
            if waiting and not force:
                return len(waiting)
            if waiting:
                intake.fail(connection, folder, waiting, GONE, jid, at=at)
            active = (tasks.c.folder == folder, tasks.c.state == TaskState.ACTIVE)
            connection.execute(sa.update(tasks).where(*active).values(state=TaskState.PAUSED))
            connection.execute(sa.delete(registrations).where(registrations.c.folder == folder))
            return len(waiting)

        return await self._database.publish(work)
