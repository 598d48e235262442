"""An import: ask what is here, plan, carry the plan out. Each step may be repeated after it broke off."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from nanoclaw_runtime.cli import carrying, v1_host
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.remote import Remote, part
from nanoclaw_runtime.domain.migration_plan import GroupPlan, Host, Installation, Plan, Verdict
from nanoclaw_runtime.domain.transfer import (
    GROUP_AREAS,
    Area,
    ChatBundle,
    ChatsTaken,
    Inventory,
    Taken,
    TaskBundle,
)

Tell = Callable[[str], None]


async def survey(remote: Remote, host: Host) -> Installation:
    """What the installation has of the groups the host has."""
    inventory = await remote.ask(Inventory, "GET", "/v1/transfer/groups")
    theirs = {group.folder for group in host.records.groups}
    folders = [group.spec.folder for group in inventory.groups if group.spec.folder in theirs]
    return Installation(
        inventory=inventory,
        tasks=await remote.ask(TaskBundle, "GET", "/v1/transfer/tasks"),
        chats=(await remote.ask(ChatBundle, "GET", "/v1/transfer/chats")).chats,
        messages={folder: await carrying.messages(remote, folder) for folder in folders},
        files={
            folder: {area: await carrying.files(remote, area, folder) for area in GROUP_AREAS} for folder in folders
        },
        shared=await carrying.files(remote, Area.GLOBAL),
    )


def refuse_live(plan: Plan) -> None:
    """Raises CommandFailed when an agent works in a group that would change."""
    if live := [group for group in plan.coming if group.session is not None]:
        stops = "; ".join(f"nanoclaw sessions stop {group.session}" for group in live)
        folders = ", ".join(group.spec.folder for group in live)
        raise CommandFailed(f"agents work in {folders}, and nothing may change under them; end them first: {stops}")


async def carry_out(remote: Remote, root: Path, plan: Plan, *, replace: bool, tell: Tell) -> None:
    """Bring in everything the plan names: groups, then their files, then what lets their agents begin."""
    import_id = f"import-{secrets.token_hex(8)}"
    if plan.shared.changed:
        tell("shared memory")
        await carrying.send_files(remote, v1_host.place(root, Area.GLOBAL), plan.shared.changed, Area.GLOBAL)
    for bundle in carrying.chat_bundles(plan.chats):
        await remote.ask(ChatsTaken, "POST", "/v1/transfer/chats", bundle)
    for group in plan.coming:
        await _group(remote, root, group, import_id, replace=replace, tell=tell)


async def _group(remote: Remote, root: Path, group: GroupPlan, import_id: str, *, replace: bool, tell: Tell) -> None:
    folder = group.spec.folder
    if group.verdict is Verdict.NEW:
        tell(f"group {folder}: registering it")
        await remote.call("POST", "/v1/groups", group.spec.model_dump(mode="json", by_alias=True))
        await carrying.until_it_has_folders(remote, folder)
    for area, files in group.files.items():
        tell(f"group {folder}: {len(files.changed)} files")
        await carrying.send_files(remote, v1_host.place(root, area, folder), files.changed, area, folder)
    if not group.has_records:
        return
    messages = (*group.messages, *group.settled)
    for body in carrying.portions(
        import_id, messages, group.tasks, group.runs, conversation=group.conversation, replace=replace
    ):
        tell(f"group {folder}: {len(group.messages)} messages, {len(group.tasks)} tasks")
        await remote.ask(Taken, "POST", f"/v1/transfer/groups/{part(folder)}/records", body)
