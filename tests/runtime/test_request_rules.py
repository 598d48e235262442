"""Who may ask for what: NanoClaw's matrix, wrong types, and that nobody ever reaches into another group."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.requests import (
    LONGEST_PROMPT,
    Change,
    ChangeTask,
    Known,
    RefreshGroups,
    Refused,
    RegisterGroup,
    RequestKind,
    ScheduleTask,
    SendMessage,
    UpdateTask,
    decide,
    named_task,
)
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind

GROUPS = [
    GroupSpec(folder="main", name="Main", jid="main@g.us"),
    GroupSpec(folder="family", name="Family", jid="family@g.us"),
    GroupSpec(folder="work", name="Work", jid="work@g.us"),
]
KNOWN = Known(GROUPS, {"task-main": "main", "task-family": "family", "task-work": "work"})


def message(**fields):
    return {"type": "message", "chatJid": "family@g.us", "text": "dinner is ready"} | fields


def schedule(**fields):
    return {
        "type": "schedule_task",
        "targetJid": "family@g.us",
        "prompt": "water the plants",
        "schedule_type": "once",
        "schedule_value": "2026-06-01T00:00:00",
    } | fields


def registration(**fields):
    return {
        "type": "register_group",
        "jid": "new@g.us",
        "name": "New",
        "folder": "new-group",
        "trigger": "@Andy",
    } | fields


def say(source, **fields):
    return decide(source, RequestKind.MESSAGE, message(**fields), KNOWN)


def ask(source, document):
    return decide(source, RequestKind.TASK, document, KNOWN)


@pytest.mark.parametrize(
    ("source", "jid", "folder"),
    [
        pytest.param("main", "family@g.us", "family", id="main to a group"),
        pytest.param("main", "stranger@g.us", None, id="main to a chat nobody registered"),
        pytest.param("family", "family@g.us", "family", id="a group to its own chat"),
    ],
)
def test_a_message_that_is_allowed_is_sent(source, jid, folder):
    assert say(source, chatJid=jid) == SendMessage(jid, folder, "dinner is ready", None)


@pytest.mark.parametrize(
    ("source", "jid"),
    [
        pytest.param("family", "work@g.us", id="to another group"),
        pytest.param("family", "main@g.us", id="to main"),
        pytest.param("family", "stranger@g.us", id="to a chat nobody registered"),
        pytest.param("unregistered", "family@g.us", id="from a folder that is no group"),
        pytest.param("Main", "work@g.us", id="from a folder that looks like main"),
    ],
)
def test_a_message_to_somebody_else_is_refused(source, jid):
    assert isinstance(say(source, chatJid=jid), Refused)


def test_the_sender_is_the_directory_and_no_field():
    assert isinstance(say("family", chatJid="work@g.us", groupFolder="work", isMain=True), Refused)


def test_a_message_may_carry_another_name():
    assert say("family", sender="Researcher").sender == "Researcher"
    assert len(say("family", sender="x" * 5000).sender) == 200
    assert say("family", sender=17).sender is None


def test_internal_thoughts_in_a_message_are_left_to_the_agent():
    assert say("family", text="<internal>hm</internal> hello").text == "<internal>hm</internal> hello"


def test_characters_that_cannot_be_stored_are_replaced():
    assert say("family", text="a\x00b\ud83dc").text == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"type": "note"}, id="another type"),
        pytest.param({"chatJid": None}, id="no chat"),
        pytest.param({"chatJid": ["family@g.us"]}, id="a list of chats"),
        pytest.param({"chatJid": "x" * 256}, id="a chat no network has"),
        pytest.param({"text": ""}, id="no text"),
        pytest.param({"text": " \n"}, id="blank"),
        pytest.param({"text": {"a": 1}}, id="an object for a text"),
    ],
)
def test_an_incomplete_message_is_refused_even_from_main(fields):
    assert isinstance(say("main", **fields), Refused)


@pytest.mark.parametrize(
    ("source", "jid", "folder"),
    [
        pytest.param("main", "family@g.us", "family", id="main for another group"),
        pytest.param("main", "main@g.us", "main", id="main for itself"),
        pytest.param("family", "family@g.us", "family", id="a group for itself"),
    ],
)
def test_a_task_that_is_allowed_is_scheduled(source, jid, folder):
    assert ask(source, schedule(targetJid=jid)) == ScheduleTask(
        folder, jid, "water the plants", TaskKind.ONCE, "2026-06-01T00:00:00", TaskContext.ISOLATED, None
    )


@pytest.mark.parametrize(
    ("source", "jid"),
    [
        pytest.param("family", "work@g.us", id="for another group"),
        pytest.param("family", "main@g.us", id="for main"),
        pytest.param("main", "stranger@g.us", id="main for a chat nobody registered"),
        pytest.param("unregistered", "family@g.us", id="from a folder that is no group"),
    ],
)
def test_a_task_for_somebody_else_is_refused(source, jid):
    assert isinstance(ask(source, schedule(targetJid=jid)), Refused)


@pytest.mark.parametrize(
    ("mode", "context"),
    [
        pytest.param({"context_mode": "group"}, TaskContext.GROUP, id="group"),
        pytest.param({"context_mode": "isolated"}, TaskContext.ISOLATED, id="isolated"),
        pytest.param({"context_mode": "bogus"}, TaskContext.ISOLATED, id="bogus"),
        pytest.param({"context_mode": 7}, TaskContext.ISOLATED, id="a number"),
        pytest.param({}, TaskContext.ISOLATED, id="missing"),
    ],
)
def test_a_context_that_is_not_understood_is_isolated(mode, context):
    assert ask("family", schedule(**mode)).context is context


@pytest.mark.parametrize("kind", list(TaskKind))
def test_every_kind_of_recurrence_is_passed_on(kind):
    decision = ask("family", schedule(schedule_type=kind.value, schedule_value="anything"))
    assert (decision.kind, decision.value) == (kind, "anything")


@pytest.mark.parametrize("field", ["prompt", "schedule_type", "schedule_value", "targetJid"])
@pytest.mark.parametrize("value", [None, "", " ", 5, True, ["x"], {}], ids=repr)
def test_a_task_with_a_field_missing_or_of_another_kind_is_refused(field, value):
    assert isinstance(ask("main", schedule(**{field: value})), Refused)


def test_a_prompt_that_nobody_needs_is_refused():
    assert ask("main", schedule(prompt="x" * LONGEST_PROMPT)).prompt == "x" * LONGEST_PROMPT
    assert isinstance(ask("main", schedule(prompt="x" * (LONGEST_PROMPT + 1))), Refused)


def test_a_recurrence_nobody_knows_is_refused():
    assert isinstance(ask("main", schedule(schedule_type="weekly")), Refused)


def test_an_agent_may_choose_the_id_of_its_task_unless_it_is_taken():
    assert ask("family", schedule(taskId="task-1-abc123")).task == "task-1-abc123"
    assert isinstance(ask("family", schedule(taskId="task-work")), Refused)
    assert isinstance(ask("family", schedule(taskId="task-family")), Refused)
    assert isinstance(ask("family", schedule(taskId="../x")), Refused)
    assert isinstance(ask("family", schedule(taskId="x" * 65)), Refused)


@pytest.mark.parametrize("change", list(Change))
@pytest.mark.parametrize(
    ("source", "task", "allowed"),
    [
        pytest.param("main", "task-family", True, id="main any"),
        pytest.param("main", "task-main", True, id="main its own"),
        pytest.param("family", "task-family", True, id="a group its own"),
        pytest.param("family", "task-work", False, id="another group's"),
        pytest.param("family", "task-main", False, id="main's"),
        pytest.param("main", "task-nobody", False, id="main one that is not there"),
        pytest.param("family", "task-nobody", False, id="one that is not there"),
        pytest.param("main", None, False, id="none"),
        pytest.param("main", 5, False, id="a number"),
    ],
)
def test_main_changes_any_task_and_others_their_own(change, source, task, allowed):
    decision = ask(source, {"type": change.value, "taskId": task})
    if allowed:
        assert decision == ChangeTask(change, task, task.removeprefix("task-"))
    else:
        assert isinstance(decision, Refused)


@pytest.mark.parametrize(
    ("source", "fields", "updated"),
    [
        pytest.param("family", {"prompt": "new"}, ("new", None, None), id="prompt"),
        pytest.param("main", {"schedule_value": "0 9 * * *"}, (None, None, "0 9 * * *"), id="main another's value"),
        pytest.param(
            "family",
            {"schedule_type": "interval", "schedule_value": "60000"},
            (None, TaskKind.INTERVAL, "60000"),
            id="recurrence",
        ),
    ],
)
def test_a_task_is_updated_in_what_the_request_names(source, fields, updated):
    decision = ask(source, {"type": "update_task", "taskId": "task-family"} | fields)
    assert decision == UpdateTask("task-family", "family", *updated)


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        pytest.param("work", {"prompt": "new"}, id="another group's"),
        pytest.param("family", {}, id="nothing to update"),
        pytest.param("family", {"prompt": ""}, id="an empty prompt"),
        pytest.param("family", {"prompt": "new", "schedule_type": "weekly"}, id="half of it wrong"),
        pytest.param("family", {"schedule_value": 60000}, id="a number for a value"),
        pytest.param("family", {"prompt": "x" * (LONGEST_PROMPT + 1)}, id="a prompt nobody needs"),
    ],
)
def test_an_update_that_is_not_allowed_or_not_understood_is_refused(source, fields):
    assert isinstance(ask(source, {"type": "update_task", "taskId": "task-family"} | fields), Refused)


def test_only_main_refreshes_the_groups():
    assert ask("main", {"type": "refresh_groups"}) == RefreshGroups()
    assert isinstance(ask("family", {"type": "refresh_groups"}), Refused)


def test_main_registers_a_group():
    assert ask("main", registration()) == RegisterGroup(
        GroupSpec(folder="new-group", name="New", jid="new@g.us", requires_trigger=True)
    )


def test_a_registration_in_full_is_understood_in_nanoclaws_words():
    mounts = [{"hostPath": "~/projects", "containerPath": "projects", "readonly": False}]
    decision = ask(
        "main",
        registration(requiresTrigger=False, containerConfig={"additionalMounts": mounts, "timeout": 600_000}),
    )
    group = decision.group
    assert group.requires_trigger is False
    assert group.container_config.timeout == 600.0
    (mount,) = group.container_config.additional_mounts
    assert (mount.host_path, mount.container_path, mount.readonly) == ("~/projects", "projects", False)


@pytest.mark.parametrize("source", ["family", "unregistered"])
def test_only_main_registers_groups(source):
    assert isinstance(ask(source, registration()), Refused)


@pytest.mark.parametrize("folder", ["../outside", "/etc", "global", "errors", "a b", "x" * 65, "-x", ".", "a/b"])
def test_a_folder_that_is_not_safe_is_not_registered(folder):
    assert isinstance(ask("main", registration(folder=folder)), Refused)


@pytest.mark.parametrize(
    "fields",
    [
        *(pytest.param({field: None}, id=f"no {field}") for field in ("jid", "name", "folder", "trigger")),
        pytest.param({"name": "x" * 201}, id="a name too long"),
        pytest.param({"jid": "x" * 256}, id="a jid too long"),
        pytest.param({"requiresTrigger": "yes"}, id="a word for a truth"),
        pytest.param({"containerConfig": []}, id="a list for a configuration"),
        pytest.param({"containerConfig": {"timeout": -1}}, id="a negative timeout"),
        pytest.param({"containerConfig": {"timeout": 10**400}}, id="an endless timeout"),
        pytest.param({"containerConfig": {"timeout": True}}, id="a truth for a timeout"),
        pytest.param({"containerConfig": {"additionalMounts": [{}]}}, id="a mount of nothing"),
        pytest.param({"containerConfig": {"privileged": True}}, id="a wish nobody knows"),
    ],
)
def test_a_registration_that_is_incomplete_or_wrong_is_refused(fields):
    assert isinstance(ask("main", registration(**fields)), Refused)


@pytest.mark.parametrize("document", [None, True, 5, 1.5, "text", [], [{}], {}, {"type": None}, {"type": {}}], ids=repr)
@pytest.mark.parametrize("kind", list(RequestKind))
def test_what_is_no_request_is_refused(kind, document):
    assert isinstance(decide("main", kind, document, KNOWN), Refused)


def test_a_reason_does_not_quote_a_chat():
    for document in (schedule(targetJid="SECRET"), {"type": "pause_task", "taskId": "SECRET"}, {"type": "SECRET"}):
        assert "SECRET" not in ask("family", document).reason
    assert "SECRET" not in say("family", chatJid="work@g.us", text="SECRET").reason


JIDS = st.sampled_from([group.jid for group in GROUPS] + ["stranger@g.us"])
WORDS = st.one_of(
    JIDS,
    st.sampled_from(["message", "schedule_task", *Change, "update_task", "refresh_groups", "register_group"]),
    st.sampled_from([*KNOWN.tasks, "cron", "interval", "once", "group", "isolated", "task-new", ""]),
    st.text(max_size=20),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)
FIELDS = [
    *("type", "chatJid", "text", "sender", "groupFolder", "isMain"),
    *("targetJid", "prompt", "schedule_type", "schedule_value", "context_mode", "taskId"),
    *("jid", "name", "folder", "trigger", "requiresTrigger", "containerConfig"),
]
DOCUMENTS = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from(FIELDS), st.one_of(WORDS, JSON)),
    st.builds(
        lambda base, more: base | more,
        st.sampled_from([message(), schedule(), registration()]),
        st.dictionaries(st.sampled_from(FIELDS), st.one_of(WORDS, JSON), max_size=3),
    ),
)


def belongs_to(decision, source):
    match decision:
        case SendMessage(jid=jid, folder=folder) | ScheduleTask(jid=jid, folder=folder):
            return folder == source and KNOWN.folder_of(jid) == source
        case ChangeTask(task=task, folder=folder) | UpdateTask(task=task, folder=folder):
            return folder == source and KNOWN.tasks[task] == source
        case Refused(reason=reason):
            return bool(reason)
        case _:
            return False


@given(st.sampled_from(["family", "work", "unregistered", "MAIN"]), st.sampled_from(RequestKind), DOCUMENTS)
@example("family", RequestKind.MESSAGE, message())
@example("work", RequestKind.TASK, schedule())
@example("work", RequestKind.TASK, {"type": "pause_task", "taskId": "task-family"})
def test_whatever_another_group_writes_stays_within_that_group(source, kind, document):
    assert belongs_to(decide(source, kind, document, KNOWN), source)


@given(st.sampled_from(RequestKind), DOCUMENTS)
def test_whatever_main_writes_is_decided_in_characters_that_can_be_stored(kind, document):
    decision = decide("main", kind, document, KNOWN)
    if isinstance(decision, SendMessage | ScheduleTask):
        text = decision.text if isinstance(decision, SendMessage) else decision.prompt
        assert "\x00" not in text
        assert text.encode()


@given(DOCUMENTS)
def test_the_named_task_is_a_text_or_nothing(document):
    assert named_task(document) is None or named_task(document).strip()
