"""What an import would change, and what messages and tasks are called on either side."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.contract.config import AdditionalMount, ContainerConfig, GroupSpec
from nanoclaw_runtime.domain import v1_inbound, v1_outbound, v1_records
from nanoclaw_runtime.domain.migration import LARGEST_RECORD, file_plan, plan
from nanoclaw_runtime.domain.migration_plan import Host, Installation, Verdict, declaration
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.domain.transfer import (
    Area,
    FileFacts,
    FileList,
    GroupFacts,
    Inventory,
    PastAnswer,
    PastChat,
    PastRun,
    PastTask,
    StoredMessage,
    TaskBundle,
)
from nanoclaw_runtime.domain.v1_records import V1Chat, V1Group, V1Message, V1Records, V1Run, V1Task

NOW = datetime(2026, 3, 2, tzinfo=UTC)
JID = "120363@g.us"
BERLIN = ZoneInfo("Europe/Berlin")


def at(minute):
    return f"2026-03-01T{minute // 60:02d}:{minute % 60:02d}:00.000Z"


def group(folder="family", jid=JID, **more):
    return replace(V1Group(jid, folder.title(), folder, "@Andy", at(0), None, True), **more)


def message(number, text="hello", jid=JID, **more):
    return replace(V1Message(f"3EB{number}", jid, "49@s", "Ada", text, at(number), False, False), **more)


def task(identity="task-1", **more):
    row = V1Task(identity, "family", JID, "water", "cron", "0 9 * * *", at(60), None, None, "active", at(0), "group")
    return replace(row, **more)


def host(**records):
    files = records.pop("files", {})
    return Host(V1Records(**{"groups": (group(),)} | records), files=files)


def inventory(*groups, registration=False):
    return Inventory(registration=registration, assistant_name="Andy", timezone="UTC", groups=groups)


def facts(folder="family", jid=JID, conversation=None, session=None):
    spec = GroupSpec(folder=folder, name=folder.title(), jid=jid)
    return GroupFacts(spec=spec, conversation=conversation, session=session)


HERE = Installation(inventory(facts()))


def planned(there, here=HERE, **more):
    (found,) = plan(there, here, now=NOW, **more).groups
    return found


def reasons(there, here=HERE):
    return {one.what: one.why for one in plan(there, here, now=NOW).left_out}


def stored(number, key, text="hello", created=NOW, *, waiting=False):
    return StoredMessage(
        number=number, key=key, sender="u", sender_name="Ada", text=text, created=created, waiting=waiting
    )


# Groups


def test_a_group_the_stack_declares_comes_in():
    found = planned(host(messages=(message(1),)))
    assert (found.verdict, found.messages_total, len(found.messages)) == (Verdict.UPDATE, 1, 1)


def test_a_group_of_which_everything_is_here_stays_as_it_is():
    here = Installation(inventory(facts()), messages={"family": [stored(1, "v1:3EB1")]})
    found = plan(host(messages=(message(1),)), here, now=NOW)
    assert found.groups[0].verdict is Verdict.SAME
    assert found.empty


def test_a_group_nobody_declared_is_registered_where_that_is_allowed():
    assert planned(host(), Installation(inventory(registration=True))).verdict is Verdict.NEW


def test_a_group_nobody_declared_is_to_be_declared_where_that_is_not_allowed():
    here = Installation(inventory())
    found = plan(host(messages=(message(1),)), here, now=NOW)
    assert found.groups[0].verdict is Verdict.UNDECLARED
    assert found.empty
    assert "declare it" in reasons(host(), here)["group family"]


def test_a_chat_that_another_group_has_here_does_not_move():
    here = Installation(inventory(facts("other"), registration=True))
    assert planned(host(), here).verdict is Verdict.UNDECLARED
    assert "belongs to group other" in reasons(host(), here)["group family"]


@pytest.mark.parametrize("folder", ["global", "Errors", "../etc", "a b", ""])
def test_a_folder_nanoclaw_would_refuse_is_left_out(folder):
    found = plan(host(groups=(group(folder),)), HERE, now=NOW)
    assert found.groups == ()
    assert f"group {folder!r}" in {one.what for one in found.left_out}


def test_a_group_keeps_the_chat_the_stack_gives_it_and_says_so():
    here = Installation(inventory(facts(jid="http:family")))
    there = host(messages=(message(1),), tasks=(task(),))
    found = planned(there, here)
    assert len(found.messages) == 1
    assert found.tasks[0].jid == "http:family"
    assert "http:family" in reasons(there, here)[f"chat {JID} of group family"]


def test_what_a_container_was_configured_with_is_said_in_our_words():
    config = {"additionalMounts": [{"hostPath": "~/notes", "containerPath": "n", "readonly": False}], "timeout": 60_000}
    spec = v1_inbound.group_spec(group(container_config=json.dumps(config)))
    mount = AdditionalMount(host_path="~/notes", container_path="n", readonly=False)
    assert spec.container_config == ContainerConfig(additional_mounts=(mount,), timeout=60)
    assert json.loads(v1_outbound.v1_group(spec, "Andy", NOW).container_config) == config


@pytest.mark.parametrize("config", ["{", "[]", '{"additionalMounts": [{"mode": 1}]}', '{"additionalMounts": 5}'])
def test_a_configuration_nobody_can_read_does_not_hold_up_its_group(config):
    there = host(groups=(group(container_config=config),))
    assert planned(there).verdict is Verdict.SAME
    assert "container configuration of group family" in reasons(there)


def test_lines_for_the_stack_are_yaml():
    yaml = pytest.importorskip("yaml")
    config = ContainerConfig(additional_mounts=(AdditionalMount(host_path="/srv/n", container_path="n"),), timeout=60)
    specs = [
        GroupSpec(folder="family", name='Ada: "us"', jid=JID, requires_trigger=False, container_config=config),
        GroupSpec(folder="main", name="Me", jid="tg:1", requires_trigger=False),
    ]
    read = [GroupSpec.model_validate(one) for one in yaml.safe_load(declaration(specs))]
    assert read == [specs[0], GroupSpec(folder="main", name="Me", jid="tg:1")]


# Messages


def test_what_the_agent_was_not_given_waits():
    found = planned(host(messages=(message(1), message(2), message(3)), cursors={JID: at(2)}))
    assert [one.waiting for one in found.messages] == [False, False, True]
    assert found.waiting == 1


def test_without_a_cursor_everything_waits():
    assert planned(host(messages=(message(1), message(2)))).waiting == 2


def test_answers_of_the_agent_and_empty_messages_are_no_history():
    rows = (
        message(1),
        message(2, is_bot_message=True),
        message(3, "Andy: hello"),
        message(4, ""),
        message(5, "mine", is_from_me=True),
    )
    found = planned(host(messages=rows))
    assert [one.text for one in found.messages] == ["hello", "mine"]
    assert found.answers == 2


def test_messages_of_unknown_chats_and_unreadable_ones_are_told():
    there = host(
        messages=(message(1, jid="stranger@s"), message(2, timestamp="yesterday"), message(3, "x" * LARGEST_RECORD))
    )
    assert planned(there).messages == ()
    assert reasons(there).keys() == {"1 messages", "message 3EB2 of group family", "message 3EB3 of group family"}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_a_message_has_one_name_however_often_it_travels(identity):
    key = v1_records.message_key(identity)
    assert 0 < len(key) <= 128
    assert v1_records.message_key(v1_records.message_id(key, 1)) == key


@given(st.text(min_size=1, max_size=128) | st.none(), st.integers(1, 10**17))
def test_a_message_of_ours_comes_home_under_its_name(key, number):
    back = v1_records.message_key(v1_records.message_id(key, number))
    assert back == key if key is not None else v1_records.number_of(back) == number


def test_a_message_without_a_name_is_known_by_its_number_and_text():
    here = Installation(inventory(facts()), messages={"family": [stored(7, None)]})
    same, other = message(1, id="stored:7"), message(2, "changed", id="stored:7")
    assert planned(host(messages=(same,)), here).messages == ()
    assert len(planned(host(messages=(other,)), here).messages) == 1


moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001


@given(st.lists(st.tuples(moments, st.booleans()), max_size=12))
def test_a_cursor_separates_what_waits_from_what_does_not(found):
    messages = [
        stored(number, f"k{number}", created=created, waiting=waiting)
        for number, (created, waiting) in enumerate(found)
    ]
    rows, cursor = v1_outbound.v1_messages(JID, messages, [], "Andy")
    back = {row.id: v1_inbound.past_message(row, cursor, BERLIN) for row in rows}
    assert [back[f"client:k{number}"].waiting for number in range(len(found))] == [waiting for _, waiting in found]
    waiting = [row.id for row in rows if row.timestamp > cursor]
    assert waiting == [f"client:k{number}" for number, (_, waits) in enumerate(found) if waits] or not cursor


@pytest.mark.parametrize(
    ("key", "identity"), [pytest.param("v1:3EB1", "3EB1", id="named"), pytest.param(None, "stored:7", id="unnamed")]
)
def test_what_was_answered_there_meanwhile_waits_here_no_longer(key, identity):
    here = Installation(inventory(facts()), messages={"family": [stored(7, key, waiting=True)]})
    answered = host(messages=(message(1, id=identity),), cursors={JID: at(1)})
    found = planned(answered, here)
    assert (found.verdict, found.messages, len(found.settled)) == (Verdict.UPDATE, (), 1)
    assert planned(host(messages=(message(1, id=identity),)), here).verdict is Verdict.SAME


def test_what_the_agent_said_is_written_as_its_own():
    rows, _ = v1_outbound.v1_messages(JID, [], [PastAnswer(number=3, text="hi", created=NOW)], "Andy")
    assert v1_inbound.is_answer(rows[0], "Otto")


# Tasks


def test_a_task_comes_with_its_log():
    found = planned(host(tasks=(task(),), runs=(V1Run("task-1", at(1), 1500, "success", "ok", None),)))
    assert found.tasks[0].kind is TaskKind.CRON
    assert found.tasks[0].next_run == datetime(2026, 3, 1, 1, tzinfo=UTC)
    assert found.runs[0].seconds == 1.5


def past(**more):
    fields = {
        "id": "task-1", "folder": "family", "jid": JID, "prompt": "p", "kind": TaskKind.CRON, "value": "0 9 * * *",
        "context": TaskContext.GROUP, "state": TaskState.ACTIVE, "next_run": NOW, "last_run": None,
        "last_result": None, "created": NOW + timedelta(microseconds=7),
    }  # fmt: skip
    return PastTask(**fields | more)


def test_a_task_that_is_here_stays_unless_it_is_to_be_replaced():
    here = Installation(inventory(facts()), tasks=TaskBundle(tasks=(past(),), runs=()))
    kept = planned(host(tasks=(task(),)), here)
    assert (kept.tasks, kept.tasks_kept) == ((), 1)
    assert [one.prompt for one in planned(host(tasks=(task(),)), here, replace=True).tasks] == ["water"]


def test_a_task_and_a_run_that_only_lost_their_microseconds_are_the_same():
    started = NOW + timedelta(microseconds=9)
    run = PastRun(task="task-1", started=started, seconds=1, outcome=RunOutcome.ERROR, result=None, error="e")
    here = Installation(inventory(facts()), tasks=TaskBundle(tasks=(past(),), runs=(run,)))
    there = host(tasks=(v1_outbound.v1_task(past()),), runs=(v1_outbound.v1_run(run),))
    assert plan(there, here, now=NOW, replace=True).empty


WRONG_TASKS = [
    pytest.param({"schedule_type": "weekly"}, "kind", id="unknown kind"),
    pytest.param({"schedule_value": "whenever"}, "whenever", id="no expression"),
    pytest.param({"status": "broken"}, "state", id="unknown state"),
    pytest.param({"created_at": "?"}, "?", id="no time"),
    pytest.param({"prompt": "x" * LARGEST_RECORD}, "longer", id="too long"),
]


@pytest.mark.parametrize(("fields", "told"), WRONG_TASKS)
def test_a_task_nobody_could_run_is_left_out(fields, told):
    there = host(tasks=(task(**fields),))
    assert planned(there).tasks == ()
    assert told in reasons(there)["task task-1 of group family"]


def test_a_task_of_no_group_is_told():
    assert "not registered" in reasons(host(tasks=(task(group_folder="gone"),)))["task task-1"]


tasks = st.fixed_dictionaries(
    {
        "prompt": st.text(max_size=20),
        "kind": st.sampled_from(TaskKind),
        "context": st.sampled_from(TaskContext),
        "state": st.sampled_from(TaskState),
        "next_run": moments | st.none(),
        "last_run": moments | st.none(),
        "last_result": st.text(max_size=5) | st.none(),
        "created": moments,
    }
).map(lambda fields: past(**fields))


@given(tasks)
def test_a_task_is_the_same_there_and_back(found):
    row = v1_outbound.v1_task(found)
    assert v1_outbound.v1_task(v1_inbound.past_task(row, JID, BERLIN)) == row


# Conversations and chats


@pytest.mark.parametrize(
    ("ours", "more", "expected"),
    [
        (None, {}, ("theirs", False)),
        ("ours", {}, (None, True)),
        ("ours", {"replace": True}, ("theirs", False)),
        ("theirs", {}, (None, False)),
    ],
)
def test_a_conversation_comes_where_there_is_none(ours, more, expected):
    here = Installation(inventory(facts(conversation=ours)))
    found = planned(host(sessions={"family": "theirs"}), here, **more)
    assert (found.conversation, found.conversation_kept) == expected


def test_chats_come_when_they_were_active_later():
    chats = (
        V1Chat("new@g", "New", at(5), "whatsapp", True),
        V1Chat("known@g", "Known", at(5), "whatsapp", True),
        V1Chat("silent@g", "Silent", None, None, False),
        V1Chat(v1_records.SYNC_MARK, None, at(9), None, False),
    )
    known = PastChat(jid="known@g", name=None, channel=None, is_group=True, last_activity=NOW)
    found = plan(host(chats=chats), Installation(inventory(facts()), chats=(known,)), now=NOW)
    assert [chat.jid for chat in found.chats] == ["new@g"]


# Files


def listed(**files):
    return FileList(
        files=tuple(FileFacts(path=name, size=1, modified=time) for name, time in files.items()), left_out=0
    )


def test_files_with_another_size_or_time_are_sent():
    found = file_plan(listed(same=5, older_here=5, new=5), listed(same=5, older_here=4, other=9), keep_newer=True)
    assert [file.path for file in found.changed] == ["older_here", "new"]
    assert (found.total, found.kept, found.bytes) == (3, 0, 2)


@pytest.mark.parametrize(
    ("conversation", "more", "kept"),
    [
        pytest.param("c", {}, 1, id="newer here after the agent worked"),
        pytest.param(None, {}, 0, id="newer here, but nobody worked"),
        pytest.param("c", {"replace": True}, 0, id="to be replaced"),
    ],
)
def test_newer_files_stay_where_an_agent_worked(conversation, more, kept):
    here = Installation(inventory(facts(conversation=conversation)), files={"family": {Area.GROUP: listed(a=9)}})
    files = planned(host(files={"family": {Area.GROUP: listed(a=5)}}), here, **more).files[Area.GROUP]
    assert (files.kept, len(files.changed)) == (kept, 1 - kept)


def test_files_of_no_group_are_told():
    there = host(files={"family": {}, "old": {Area.GROUP: listed(a=1)}})
    assert reasons(there) == {"files of old": "no group of this folder is registered"}
