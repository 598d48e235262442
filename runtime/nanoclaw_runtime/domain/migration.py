"""What an import would change: a function of what a v1 host has and of what the installation has.

What is there already stays as it is, so an import that is repeated changes nothing. Carrying a
plan out, and the way back, are `cli.transfer`; what a plan looks like is `migration_plan`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace as replace_fields
from datetime import datetime
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain import recurrence, v1_inbound, v1_outbound
from nanoclaw_runtime.domain.errors import TaskInvalid
from nanoclaw_runtime.domain.migration_plan import FilePlan, GroupPlan, Host, Installation, LeftOut, Plan, Verdict
from nanoclaw_runtime.domain.transfer import (
    GROUP_AREAS,
    NO_FILES,
    Area,
    FileList,
    GroupFacts,
    PastChat,
    PastMessage,
    PastRun,
    PastTask,
    StoredMessage,
)
from nanoclaw_runtime.domain.v1_inbound import complaint
from nanoclaw_runtime.domain.v1_records import SYNC_MARK, V1Group, V1Message, V1Records, number_of

LARGEST_RECORD: Final = 768 * 1024
"""Bytes of the JSON of one message, task or run; a request to the controller has at most 1 MiB."""


_Sent = TypeVar("_Sent", PastMessage, PastTask, PastRun)


def plan(host: Host, here: Installation, *, now: datetime, replace: bool = False) -> Plan:
    """What is to be done so that the installation has what the host has.

    `replace` lets the host win where both have something: tasks, the conversation, newer files.
    """
    return _Planner(host, here, now, replace=replace).plan()


def file_plan(there: FileList, here: FileList, *, keep_newer: bool) -> FilePlan:
    """Which files are not there yet with the same size and time."""
    known = {file.path: file for file in here.files}
    changed, kept = [], 0
    for file in there.files:
        other = known.get(file.path)
        if other == file:
            continue
        if keep_newer and other is not None and other.modified > file.modified:
            kept += 1
        else:
            changed.append(file)
    return FilePlan(tuple(changed), len(there.files), kept, there.left_out)


class _Planner:
    def __init__(self, host: Host, here: Installation, now: datetime, *, replace: bool) -> None:
        self._host, self._here, self._now, self._replace = host, here, now, replace
        self._zone = ZoneInfo(here.inventory.timezone)
        self._left_out = list(host.left_out)
        self._messages = _by_chat(host.records)
        self._tasks_here = {task.id: v1_outbound.v1_task(task) for task in here.tasks.tasks}
        self._runs_here = {(run.task, v1_outbound.v1_run(run).run_at) for run in here.tasks.runs}

    def plan(self) -> Plan:
        groups = [planned for row in self._host.records.groups if (planned := self._group(row)) is not None]
        self._strangers()
        shared = file_plan(self._host.shared, self._here.shared, keep_newer=self._keep_newer(None))
        return Plan(tuple(groups), tuple(self._chats()), shared, tuple(self._left_out))

    def _group(self, row: V1Group) -> GroupPlan | None:
        spec = self._spec(row)
        if spec is None:
            return None
        facts = self._here.inventory.group(spec.folder)
        if facts is None and (why := self._unwelcome(spec)):
            self._leave_out(f"group {spec.folder}", why)
            return GroupPlan(spec, Verdict.UNDECLARED)
        found = self._content(row, facts.spec if facts else spec, facts)
        changes = found.has_records or any(files.changed for files in found.files.values())
        verdict = Verdict.NEW if facts is None else Verdict.UPDATE if changes else Verdict.SAME
        return replace_fields(found, verdict=verdict)

    def _spec(self, row: V1Group) -> GroupSpec | None:
        if problem := names.folder_problem(row.folder):
            self._leave_out(f"group {row.folder!r}", problem)
            return None
        try:
            return v1_inbound.group_spec(row)
        except ValueError as error:
            self._leave_out(f"container configuration of group {row.folder}", complaint(error))
        try:
            return v1_inbound.group_spec(replace_fields(row, container_config=None))
        except ValueError as error:
            self._leave_out(f"group {row.folder}", complaint(error))
            return None

    def _unwelcome(self, spec: GroupSpec) -> str | None:
        """Why the group cannot be registered."""
        for facts in self._here.inventory.groups:
            if facts.spec.jid == spec.jid:
                return f"its chat {spec.jid} belongs to group {facts.spec.folder} here; one of them has to go"
        if not self._here.inventory.registration:
            return "the stack does not declare it, and registration is off: declare it and run `pulumi up`"
        return None

    def _content(self, row: V1Group, spec: GroupSpec, facts: GroupFacts | None) -> GroupPlan:
        if facts is not None and spec.jid != row.jid:
            self._leave_out(
                f"chat {row.jid} of group {spec.folder}",
                f"the group has the chat {spec.jid} here; declare the jid to keep it",
            )
        answers, messages = self._history(row)
        known = _known(self._here.messages.get(spec.folder, ()))
        pairs = [(message, known(message)) for message in messages]
        tasks, tasks_kept = self._tasks(row, spec)
        belonging = {task.id for task in tasks}
        belonging |= {task.id for task in self._here.tasks.tasks if task.folder == spec.folder}
        theirs = self._host.records.sessions.get(spec.folder)
        ours = facts.conversation if facts else None
        keep = ours is not None and not self._replace
        return GroupPlan(
            spec=spec,
            verdict=Verdict.SAME,
            messages=tuple(message for message, ours in pairs if ours is None),
            settled=tuple(message for message, ours in pairs if ours and ours.waiting and not message.waiting),
            messages_total=len(messages),
            answers=answers,
            tasks=tuple(tasks),
            runs=tuple(self._runs(belonging)),
            tasks_kept=tasks_kept,
            conversation=theirs if theirs != ours and not keep else None,
            conversation_kept=keep and theirs not in {None, ours},
            files=self._files(spec.folder, facts),
            session=facts.session if facts else None,
        )

    def _history(self, row: V1Group) -> tuple[int, list[PastMessage]]:
        cursor, answers, messages = self._host.records.cursors.get(row.jid, ""), 0, []
        for message in self._messages.get(row.jid, ()):
            if v1_inbound.is_answer(message, self._here.inventory.assistant_name):
                answers += 1
            elif message.content:
                try:
                    messages.append(_bounded(v1_inbound.past_message(message, cursor, self._zone)))
                except ValueError as error:
                    self._leave_out(f"message {message.id} of group {row.folder}", complaint(error))
        return answers, messages

    def _tasks(self, row: V1Group, spec: GroupSpec) -> tuple[list[PastTask], int]:
        """Those that come, and how many do not because they are here already, another way."""
        found = []
        for task in self._host.records.tasks:
            if task.group_folder != row.folder:
                continue
            jid = spec.jid if task.chat_jid == row.jid else task.chat_jid
            try:
                past = _bounded(v1_inbound.past_task(task, jid, self._zone))
                recurrence.first_run(past.kind, past.value, now=self._now, zone=self._zone.key)
            except (ValueError, TaskInvalid) as error:
                why = complaint(error) if isinstance(error, ValueError) else str(error)
                self._leave_out(f"task {task.id} of group {row.folder}", why)
            else:
                found += [past] if self._tasks_here.get(past.id) != v1_outbound.v1_task(past) else []
        coming = [task for task in found if self._replace or task.id not in self._tasks_here]
        return coming, len(found) - len(coming)

    def _runs(self, tasks: set[str]) -> list[PastRun]:
        runs = []
        for row in self._host.records.runs:
            if row.task_id in tasks:
                try:
                    run = _bounded(v1_inbound.past_run(row, self._zone))
                except ValueError as error:
                    self._leave_out(f"a run of task {row.task_id}", complaint(error))
                    continue
                runs += [run] if (run.task, v1_outbound.v1_run(run).run_at) not in self._runs_here else []
        return runs

    def _files(self, folder: str, facts: GroupFacts | None) -> dict[Area, FilePlan]:
        there, here = self._host.files.get(folder, {}), self._here.files.get(folder, {})
        keep = self._keep_newer(facts)
        return {
            area: file_plan(there.get(area, NO_FILES), here.get(area, NO_FILES), keep_newer=keep)
            for area in GROUP_AREAS
        }

    def _keep_newer(self, facts: GroupFacts | None) -> bool:
        """Whether newer files here are somebody's work: of a group that never spoke they are not."""
        used = any(group.conversation for group in self._here.inventory.groups)
        return not self._replace and (used if facts is None else facts.conversation is not None)

    def _chats(self) -> list[PastChat]:
        known, changed = {chat.jid: chat for chat in self._here.chats}, []
        for row in self._host.records.chats:
            if row.jid == SYNC_MARK or not row.last_message_time:
                continue
            try:
                chat = v1_inbound.past_chat(row, self._zone)
            except ValueError as error:
                self._leave_out(f"chat {row.jid}", complaint(error))
                continue
            other = known.get(chat.jid)
            if other is None or other.last_activity < chat.last_activity:
                changed.append(chat)
        return changed

    def _strangers(self) -> None:
        """What belongs to nobody who is registered."""
        records = self._host.records
        chats, folders = {group.jid for group in records.groups}, {group.folder for group in records.groups}
        if lost := sum(len(rows) for jid, rows in self._messages.items() if jid not in chats):
            self._leave_out(f"{lost} messages", "their chats are not registered")
        for task in records.tasks:
            if task.group_folder not in folders:
                self._leave_out(f"task {task.id}", f"group {task.group_folder!r} is not registered")
        for folder in sorted(self._host.files.keys() - folders):
            self._leave_out(f"files of {folder}", "no group of this folder is registered")

    def _leave_out(self, what: str, why: str) -> None:
        self._left_out.append(LeftOut(what, why))


def _by_chat(records: V1Records) -> dict[str, list[V1Message]]:
    found: dict[str, list[V1Message]] = {}
    for row in records.messages:
        found.setdefault(row.chat_jid, []).append(row)
    return found


def _bounded(record: _Sent) -> _Sent:
    """The record, unless no request has room for it: then a ValueError."""
    if len(json.dumps(record.model_dump(mode="json"))) > LARGEST_RECORD:
        raise ValueError("it is longer than what the controller takes at once")
    return record


def _known(stored: Sequence[StoredMessage]) -> Callable[[PastMessage], StoredMessage | None]:
    """The message as it is here: under its key, or, having none, under its number."""
    named = {message.key: message for message in stored if message.key is not None}
    unnamed = {(message.number, message.text): message for message in stored if message.key is None}

    def known(message: PastMessage) -> StoredMessage | None:
        number = number_of(message.key)
        return named.get(message.key) or (unnamed.get((number, message.text)) if number is not None else None)

    return known
