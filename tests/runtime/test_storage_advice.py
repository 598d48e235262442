"""What measured storage is recommended for: figures and access modes in a table, choices out."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.domain.storage_advice import Measured, What, Where, advise

RWX, RWO, RWOP = ["ReadWriteMany"], ["ReadWriteOnce"], ["ReadWriteOncePod"]
SAME, OTHER = Where.SAME_NODE, Where.OTHER_NODE


def seen(where, p99, *, what=What.CREATED, missed=False):
    return Measured(what, where, 200, p99 / 2, p99, p99 / 4, p99, missed)


def fsync(p99, p50=None):
    return Measured(What.PAGE_FSYNC, Where.CLAIM, 200, p99 / 2 if p50 is None else p50, p99, p99 / 4, p99)


def chosen(measured, modes):
    return {each.subject: each.choice for each in advise(measured, modes)}


def told(measured, modes, subject):
    return next(each.because for each in advise(measured, modes) if each.subject == subject)


@pytest.mark.parametrize(
    ("measured", "modes", "transport"),
    [
        pytest.param([seen(SAME, 0.005), seen(OTHER, 0.008)], RWX, "volume", id="seen-at-once"),
        pytest.param([seen(SAME, 0.005), seen(OTHER, 0.25)], RWX, "volume", id="just-in-time"),
        pytest.param([seen(SAME, 0.005), seen(OTHER, 0.251)], RWX, "bridge", id="just-too-late"),
        pytest.param([seen(SAME, 0.005), seen(OTHER, 0.01, missed=True)], RWX, "bridge", id="once-not-seen"),
        pytest.param([seen(SAME, 0.005)], RWX, "volume, on one node", id="one-node-measured"),
        pytest.param([seen(SAME, 1.0)], RWX, "bridge", id="one-node-and-slow"),
        pytest.param([], RWX, "volume, on one node", id="nothing-measured"),
        pytest.param([seen(SAME, 0.005)], RWO, "bridge", id="one-node-at-a-time"),
        pytest.param([], RWOP, "bridge", id="one-pod-at-a-time"),
    ],
)
def test_messages_go_by_volumes_only_where_another_node_sees_them_soon(measured, modes, transport):
    assert chosen(measured, modes)["transport"] == transport


def test_the_slowest_of_what_agents_do_decides():
    slow = [seen(OTHER, 0.005), seen(OTHER, 30.0, what=What.CLOSED)]
    assert chosen(slow, RWX)["transport"] == "bridge"
    assert "_close is seen after 30.0 s" in told(slow, RWX, "transport")


@pytest.mark.parametrize("what", [What.APPENDED, What.APPENDED_HELD, What.CREATED_HELD], ids=lambda what: what.name)
def test_what_no_message_waits_for_decides_nothing(what):
    late = [seen(OTHER, 0.005), seen(OTHER, 30.0, what=what)]
    assert chosen(late, RWX)["transport"] == "volume"


@pytest.mark.parametrize(
    ("measured", "modes", "mode", "layout"),
    [
        pytest.param([seen(OTHER, 0.005)], RWX, "ReadWriteMany", "shared", id="shared-and-prompt"),
        pytest.param([seen(OTHER, 30.0)], RWX, "ReadWriteOnce", "per-group", id="shared-and-late"),
        pytest.param([], RWO, "ReadWriteOnce", "per-group", id="block"),
        pytest.param([], RWOP, "ReadWriteOncePod", "per-group", id="block-of-one-pod"),
    ],
)
def test_access_mode_and_layout_follow_the_transport(measured, modes, mode, layout):
    found = chosen(measured, modes)
    assert (found["access mode"], found["layout"]) == (mode, layout)


@pytest.mark.parametrize(
    ("measured", "polling"),
    [
        pytest.param([seen(SAME, 9.0), seen(OTHER, 0.005)], "the agent's own", id="the-other-node-counts"),
        pytest.param([seen(OTHER, 30.0)], "does not help", id="cached"),
        pytest.param([seen(SAME, 0.005)], "the agent's own", id="one-node"),
        pytest.param([], None, id="nothing-measured"),
    ],
)
def test_polling_is_blamed_only_where_it_is_what_delays(measured, polling):
    assert chosen(measured, RWX).get("polling") == polling


def test_the_agents_own_poll_is_told_with_what_it_adds():
    assert told([seen(OTHER, 0.01)], RWX, "polling") == "it adds 250 ms on average, and the storage 5 ms"


@pytest.mark.parametrize(
    ("measured", "modes", "place"),
    [
        pytest.param([fsync(0.004)], RWO, "here", id="fast"),
        pytest.param([fsync(0.02)], RWOP, "here", id="just-fast-enough"),
        pytest.param([fsync(0.03)], RWO, "a faster class", id="slow"),
        pytest.param([fsync(0.00002)], RWO, "not before it is known", id="too-fast-to-be-true"),
        pytest.param([fsync(0.004)], RWX, "another claim", id="shared"),
        pytest.param([], RWO, None, id="nothing-measured"),
    ],
)
def test_the_database_lies_where_a_commit_is_fast_and_real(measured, modes, place):
    assert chosen(measured, modes).get("database") == place


def test_every_recommendation_has_a_choice_and_a_reason():
    for modes in (RWX, RWO, RWOP):
        for each in advise([seen(SAME, 0.1), seen(OTHER, 0.3), fsync(0.01)], modes):
            assert each.choice
            assert each.because
