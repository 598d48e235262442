"""What moves, as a person sees it and as a script reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nanoclaw_runtime.cli.exporting import Exported
from nanoclaw_runtime.cli.pushing import Pushed
from nanoclaw_runtime.cli.render import printable
from nanoclaw_runtime.domain.migration_plan import FilePlan, GroupPlan, LeftOut, Plan, declaration


def plan_document(plan: Plan, *, done: bool) -> dict[str, Any]:
    """The plan as JSON; `done` tells whether it was carried out."""
    return {
        "done": done,
        "groups": [_group_document(group) for group in plan.groups],
        "shared": _files_document([plan.shared]),
        "chats": len(plan.chats),
        "leftOut": [asdict(one) for one in plan.left_out],
        "declare": declaration(plan.undeclared) if plan.undeclared else None,
    }


def plan_table(plan: Plan) -> RenderableType:
    table = _table("group", "plan", "files", "size", "messages", "unanswered", "tasks", "conversation")
    for group in plan.groups:
        files = list(group.files.values())
        table.add_row(
            group.spec.folder,
            group.verdict,
            _of(sum(len(one.changed) for one in files), sum(one.total for one in files)),
            size(sum(one.bytes for one in files)),
            _of(len(group.messages), group.messages_total),
            str(group.waiting),
            str(len(group.tasks)),
            printable(group.conversation or "-"),
        )
    parts: list[RenderableType] = [table]
    if plan.shared.changed:
        parts.append(Text(f"shared memory: {len(plan.shared.changed)} files, {size(plan.shared.bytes)}"))
    if plan.chats:
        parts.append(Text(f"known chats: {len(plan.chats)}"))
    parts += [Text(f"{what} stay; --replace takes the host's") for what in _kept(plan)]
    if settled := sum(len(group.settled) for group in plan.groups):
        parts.append(Text(f"{settled} of the messages waiting here were answered there and wait no longer"))
    parts += _left_out(plan.left_out)
    if plan.undeclared:
        parts.append(Text("\nDeclare these in the stack, below `groups:`, run `pulumi up`, and import again:\n"))
        parts.append(Text(printable(declaration(plan.undeclared))))
    return Group(*parts)


def exported_document(exported: Sequence[Exported], folder: str) -> dict[str, Any]:
    return {"folder": folder, "groups": [asdict(one) for one in exported]}


def exported_table(exported: Sequence[Exported], folder: str) -> RenderableType:
    table = _table("group", "files", "size", "messages", "unanswered", "answers", "tasks")
    parts: list[RenderableType] = [table]
    for one in exported:
        numbers = (one.files, size(one.bytes), one.messages, one.waiting, one.answers, one.tasks)
        table.add_row(one.folder, *map(str, numbers))
        if one.session is not None:
            parts.append(
                Text(f"an agent works in {one.folder}: what it writes now is not here; export again once it ended")
            )
    parts += [Text(f"the files of {one.folder} are not here") for one in exported if one.without_files]
    parts.append(Text(f"written to {folder}; secrets are not: the host there needs its .env"))
    return Group(*parts)


def pushed(found: Pushed, *, dry_run: bool) -> str:
    sent, removed = ("to send", "to remove") if dry_run else ("sent", "removed")
    return f"{found.files} files; {sent}: {found.sent} ({size(found.bytes)}), {removed}: {found.removed}"


def size(count: int) -> str:
    """Bytes as a person says them."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _group_document(group: GroupPlan) -> dict[str, Any]:
    return {
        "folder": group.spec.folder,
        "jid": group.spec.jid,
        "plan": group.verdict.value,
        "files": _files_document(list(group.files.values())),
        "messages": {
            "new": len(group.messages),
            "total": group.messages_total,
            "unanswered": group.waiting,
            "answers": group.answers,
            "settled": len(group.settled),
        },
        "tasks": [task.id for task in group.tasks],
        "tasksKept": group.tasks_kept,
        "runs": len(group.runs),
        "conversation": group.conversation,
        "conversationKept": group.conversation_kept,
    }


def _files_document(files: Sequence[FilePlan]) -> dict[str, int]:
    return {
        "new": sum(len(one.changed) for one in files),
        "bytes": sum(one.bytes for one in files),
        "total": sum(one.total for one in files),
        "keptNewer": sum(one.kept for one in files),
        "links": sum(one.links for one in files),
    }


def _left_out(found: Sequence[LeftOut]) -> list[RenderableType]:
    if not found:
        return []
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in found:
        table.add_row(Text(printable(one.what)), Text(printable(one.why), style="dim"))
    return [Text("\nLeft out:"), table]


def _kept(plan: Plan) -> Iterable[str]:
    """What both have, and what is here wins."""
    if files := sum(one.kept for one in _all_files(plan)):
        yield f"{files} files that are newer here"
    if tasks := sum(group.tasks_kept for group in plan.groups):
        yield f"{tasks} tasks that differ here"
    if folders := [group.spec.folder for group in plan.groups if group.conversation_kept]:
        yield f"other conversations here, of {', '.join(folders)},"


def _all_files(plan: Plan) -> list[FilePlan]:
    return [plan.shared, *(files for group in plan.groups for files in group.files.values())]


def _of(some: int, total: int) -> str:
    return f"{some} of {total}" if total else "0"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
