"""Which node has which group: nothing moves that does not have to, and nothing that may not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.contract.config import GroupSpec, NodelocalSettings
from nanoclaw_runtime.domain.assignment import SETTLE, Assigned, Member, assign

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EARLIER = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
SETTINGS = NodelocalSettings(gone_after=60)
SHARED = NodelocalSettings(gone_after=60, shared=True)
GONE = 60.0


def group(folder, *, ephemeral=False):
    return GroupSpec(folder=folder, name=folder, ephemeral=ephemeral)


def member(node, **state):
    return Member(node, **({"silent": 0.0, "present": 1000.0} | state))


def has(node, generation=1):
    return Assigned(node=node, since=EARLIER, generation=generation)


NODES = [f"node-{number}" for number in range(6)]
FOLDERS = [f"group-{number}" for number in range(12)]

members = st.lists(
    st.builds(
        Member,
        st.sampled_from(NODES),
        silent=st.sampled_from([0.0, 59.9, GONE, 4000.0]),
        present=st.just(1000.0),
        draining=st.booleans(),
    ),
    unique_by=lambda member: member.node,
)
groups = st.lists(
    st.builds(group, st.sampled_from(FOLDERS), ephemeral=st.booleans()), unique_by=lambda group: group.folder
)
records = st.dictionaries(
    st.sampled_from(FOLDERS), st.builds(has, st.sampled_from(NODES), generation=st.integers(1, 50))
)
settings = st.sampled_from([SETTINGS, SHARED])


@given(groups, members, records, settings)
def test_a_second_look_changes_nothing(groups, members, known, settings):
    first = assign(groups, members, known, settings, NOW)
    assert assign(groups, members, first.groups, settings, NOW) == first


@given(groups, members, records, settings)
def test_only_groups_that_may_move_do_and_only_off_nodes_that_are_gone_or_drained(groups, members, known, settings):
    result = assign(groups, members, known, settings, NOW).groups
    stays = {member.node for member in members if member.silent < settings.gone_after and not member.draining}
    for folder, before in known.items():
        if result[folder] != before:
            assert settings.shared or next(each for each in groups if each.folder == folder).ephemeral
            assert before.node not in stays
            assert result[folder].node in stays
            assert result[folder].generation == before.generation + 1
            assert result[folder].since == NOW


@given(groups, members, records, settings)
def test_every_declared_group_has_a_node_that_takes_it_is_reported_or_has_none(groups, members, known, settings):
    result = assign(groups, members, known, settings, NOW)
    alive = {member.node for member in members if member.silent < settings.gone_after}
    takers = {member.node for member in members if member.node in alive and not member.draining}
    for each in groups:
        if each.folder in result.without:
            assert each.folder not in result.groups
            assert not takers
        else:
            assert (each.folder in result.stranded) == (result.groups[each.folder].node not in alive)
        if takers and (settings.shared or each.ephemeral):
            assert result.groups[each.folder].node in takers


@given(groups, members, records, settings, st.randoms(use_true_random=False))
def test_the_order_of_what_is_known_does_not_matter(groups, members, known, settings, random):
    expected = assign(groups, members, known, settings, NOW)
    random.shuffle(groups)
    random.shuffle(members)
    assert assign(groups, members, dict(sorted(known.items())), settings, NOW) == expected


@given(groups, st.lists(st.sampled_from(NODES), unique=True, min_size=1), settings)
def test_new_groups_are_spread_evenly(groups, nodes, settings):
    result = assign(groups, [member(node) for node in nodes], {}, settings, NOW)
    load = Counter(assigned.node for assigned in result.groups.values())
    assert len(result.groups) == len(groups)
    assert max(load.values(), default=0) <= -(-len(groups) // len(nodes))


@given(groups, st.lists(st.sampled_from(NODES), unique=True, min_size=2), settings)
def test_a_node_that_joins_takes_nothing_from_the_others(groups, nodes, settings):
    before = assign(groups, [member(node) for node in nodes[1:]], {}, settings, NOW)
    assert assign(groups, [member(node) for node in nodes], before.groups, settings, NOW) == before


def test_groups_wait_until_the_members_are_all_there():
    fresh = [member("n1", present=SETTLE - 1), member("n2")]
    assert assign([group("main")], fresh, {}, SETTINGS, NOW).without == ("main",)
    assert assign([group("main")], [replace(each, present=SETTLE) for each in fresh], {}, SETTINGS, NOW).without == ()


def test_groups_wait_for_a_member_that_is_about_to_come_and_lost_nodes_do_not():
    there = [member("n1")]
    assert assign([group("main")], there, {}, SETTINGS, NOW, coming=True).without == ("main",)
    moved = assign([group("a", ephemeral=True)], there, {"a": has("n2")}, SETTINGS, NOW, coming=True)
    assert moved.groups["a"].node == "n1"


def test_a_group_moves_off_a_lost_node_although_a_member_has_just_come():
    found = assign([group("a", ephemeral=True)], [member("n2", present=0.0)], {"a": has("n1")}, SETTINGS, NOW)
    assert found.groups["a"].node == "n2"


@pytest.mark.parametrize("silent", [GONE, None], ids=["silent", "forgotten"])
def test_a_group_whose_data_is_on_a_lost_node_stays_and_is_reported(silent):
    gone = [member("n1", silent=silent)] if silent else []
    found = assign([group("a")], [*gone, member("n2")], {"a": has("n1")}, SETTINGS, NOW)
    assert (found.groups, found.stranded) == ({"a": has("n1")}, ("a",))


def test_a_group_without_a_record_goes_where_its_latest_data_is():
    there = [member("n1", holds={"a": 3}), member("n2", holds={"a": 4}, draining=True), member("n3")]
    found = assign([group("a")], there, {}, SETTINGS, NOW)
    assert found.groups["a"] == Assigned(node="n2", since=NOW, generation=5)


def test_a_record_comes_before_data_that_was_left_behind():
    found = assign([group("a")], [member("n1"), member("n2", holds={"a": 9})], {"a": has("n1")}, SETTINGS, NOW)
    assert found.groups["a"] == has("n1")


def test_a_group_that_is_not_declared_any_more_keeps_its_place():
    found = assign([], [member("n2")], {"old": has("n1")}, SHARED, NOW)
    assert (found.groups, found.stranded) == ({"old": has("n1")}, ())


def test_the_places_are_the_same_in_every_version():
    """Another hash would send every new group of a running installation elsewhere, and none of the old ones."""
    found = assign([group(folder) for folder in ("main", "a", "b", "c")], [member(n) for n in "xyz"], {}, SETTINGS, NOW)
    assert {folder: each.node for folder, each in found.groups.items()} == {"main": "z", "a": "y", "b": "x", "c": "z"}
