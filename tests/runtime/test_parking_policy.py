"""For whom agents are parked: the rules as examples, budget and calm as a state machine."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from nanoclaw_runtime.contract.config import (
    AgentSettings,
    ControllerConfig,
    ParkingSettings,
    Pattern,
    Priority,
    Resources,
    Transport,
    Warm,
)
from nanoclaw_runtime.domain.parking import (
    FIRST_BACK_OFF,
    LONGEST_BACK_OFF,
    SETTLE,
    BackOff,
    Budget,
    Candidate,
    Drop,
    Park,
    Parked,
    State,
    Why,
    decide,
    least_valuable,
    rank,
)

NOW = 1_000_000.0
ONE = Budget(pods=1)


def waiting(since=NOW, **more):
    return Parked("s", State.WAITING, since, **more)


def used(folder, ago, **more):
    return Candidate(folder, used=NOW - ago, **more)


def parked(folder, ago=0, *, since=NOW, **more):
    return used(folder, ago, parked=Parked(f"s-{folder}", State.WAITING, since), **more)


def dropped(actions):
    return [(action.folder, action.why) for action in actions if isinstance(action, Drop)]


def parks(actions):
    return [action.folder for action in actions if isinstance(action, Park)]


# Who is worth one


def test_pinned_groups_go_before_tasks_and_these_before_recent_use():
    groups = [
        used("recent", 10),
        Candidate("task", due=NOW + 299),
        Candidate("pinned", warm=Warm.ALWAYS),
        used("earlier", 20),
    ]
    assert parks(decide(groups, Budget(pods=9), NOW)) == ["pinned", "task", "recent", "earlier"]


def test_an_overdue_task_is_worth_an_agent_and_one_far_ahead_is_not():
    groups = [Candidate("overdue", due=NOW - 5), Candidate("far", due=NOW + 301)]
    assert parks(decide(groups, Budget(pods=9), NOW)) == ["overdue"]


def test_a_group_that_was_not_used_lately_is_worth_none():
    assert decide([used("old", 3601), Candidate("never")], Budget(pods=9), NOW) == []


def test_a_group_that_is_never_to_be_warm_is_not_parked_for_and_loses_what_it_has():
    assert decide([used("a", 1, warm=Warm.NEVER)], ONE, NOW) == []
    assert dropped(decide([parked("a", warm=Warm.NEVER)], ONE, NOW)) == [("a", Why.UNUSED)]


@pytest.mark.parametrize(("one", "other"), [(Priority.HIGH, Priority.NORMAL), (Priority.NORMAL, Priority.LOW)], ids=str)
def test_a_priority_is_a_head_start(one, other):
    groups = [used("a", 299, priority=one), used("b", 0, priority=other), used("c", 301, priority=one)]
    assert parks(decide(groups, Budget(pods=9), NOW)) == ["a", "b", "c"]


def test_nothing_is_parked_for_a_busy_group():
    assert decide([used("a", 0, busy=True)], ONE, NOW) == []


def test_a_message_of_the_future_counts_as_one_of_now():
    assert parks(decide([used("a", -50)], ONE, NOW)) == ["a"]


# The budget


def test_no_more_are_parked_than_there_may_be():
    groups = [used(folder, ago) for ago, folder in enumerate("abcde")]
    assert parks(decide(groups, Budget(pods=3), NOW)) == ["a", "b", "c"]


def test_memory_bounds_them_as_well():
    assert Budget(pods=5, memory=1000, each=300).places == 3
    assert Budget(pods=2, memory=1000, each=300).places == 2


def test_the_budget_is_the_stack_s():
    agent = AgentSettings(image="agent:1", resources=Resources(memory_request="256Mi"))
    parking = ParkingSettings(pods=9, memory="1Gi", recent=60, ahead=6)
    budget = Budget.of(ControllerConfig(agent=agent, parking=parking, start_timeout=7))
    assert (budget.places, budget.recent, budget.ahead, budget.patience) == (4, 60, 6, 7)
    bridged = ControllerConfig(agent=agent, parking=parking, transport=Transport.BRIDGE)
    assert Budget.of(bridged).places == 3


def test_a_statefulset_s_pods_are_parked_by_nature_and_a_job_s_on_demand():
    agent = AgentSettings(image="agent:1")
    places = {
        pattern: Budget.of(ControllerConfig(agent=agent, pattern=pattern, max_concurrent_sessions=4)).places
        for pattern in (Pattern.JOB, Pattern.STATEFULSET)
    }
    assert places == {Pattern.JOB: 0, Pattern.STATEFULSET: 4}


def test_those_above_a_smaller_budget_are_dropped_least_valuable_first():
    groups = [parked("a", 1), parked("b", 2), parked("c", 3)]
    assert dropped(decide(groups, ONE, NOW)) == [("c", Why.BUDGET), ("b", Why.BUDGET)]


def test_an_agent_that_leaves_still_takes_its_place():
    leaving = used("a", 0, parked=Parked("s", State.LEAVING, NOW))
    assert decide([leaving, used("b", 1)], ONE, NOW) == []


# What is dropped


def test_scale_to_zero():
    assert dropped(decide([parked("a", 3601)], ONE, NOW)) == [("a", Why.UNUSED)]


def test_a_stale_agent_is_replaced():
    stale = used("a", 0, parked=waiting(fingerprint="old", expected="new"))
    assert decide([stale], ONE, NOW) == [Drop("a", "s", Why.STALE)]
    assert decide([replace(stale, parked=None)], ONE, NOW) == [Park("a")]


@pytest.mark.parametrize("known", [{}, {"fingerprint": "x"}, {"expected": "x"}, {"fingerprint": "x", "expected": "x"}])
def test_an_agent_that_is_not_known_to_be_stale_stays(known):
    assert decide([used("a", 0, parked=waiting(**known))], ONE, NOW) == []


def test_an_agent_that_waited_for_too_long_is_replaced():
    old = used("a", 0, parked=Parked("s", State.WAITING, NOW - 6 * 3600 - 1))
    assert decide([old], ONE, NOW) == [Drop("a", "s", Why.OLD)]
    assert decide([replace(old, busy=True)], ONE, NOW) == []


def test_a_dead_agent_is_dropped_even_when_its_group_is_about_to_use_it():
    dead = used("a", 0, parked=Parked("s", State.DEAD, NOW), busy=True)
    assert dropped(decide([dead], ONE, NOW)) == [("a", Why.DEAD)]


def test_an_agent_that_does_not_come_to_wait_is_given_up():
    late = used("a", 0, parked=Parked("s", State.STARTING, NOW - 121))
    assert dropped(decide([late], ONE, NOW)) == [("a", Why.LATE)]
    assert decide([replace(late, busy=True)], ONE, NOW) == []


def test_what_a_waiting_message_will_use_stays_whoever_else_wants_the_place():
    mine = parked("a", 9000, since=NOW - 9000, busy=True)
    assert decide([mine, Candidate("b", warm=Warm.ALWAYS)], ONE, NOW) == []


# Calm


def test_an_agent_does_not_yield_to_a_group_that_is_only_more_recent():
    assert decide([parked("a", 200, since=NOW - 900), used("b", 1)], ONE, NOW) == []
    assert decide([parked("a", 900, since=NOW - 200), used("b", 1)], ONE, NOW) == []


def test_an_agent_that_has_rested_yields_to_a_more_recent_group():
    groups = [parked("a", SETTLE, since=NOW - SETTLE), used("b", 1)]
    assert decide(groups, ONE, NOW) == [Drop("a", "s-a", Why.YIELDS)]
    assert decide([parked("a", SETTLE, since=NOW - SETTLE), used("b", 2 * SETTLE)], ONE, NOW) == []


def test_a_task_that_comes_near_and_a_pinned_group_need_not_wait_for_that():
    for better in (Candidate("b", due=NOW + 60), Candidate("b", warm=Warm.ALWAYS)):
        assert decide([parked("a"), better], ONE, NOW) == [Drop("a", "s-a", Why.YIELDS)]


def test_nobody_yields_to_a_group_for_which_parking_has_failed():
    groups = [parked("a", SETTLE, since=NOW - SETTLE), used("b", 1, not_before=NOW + 1)]
    assert decide(groups, ONE, NOW) == []
    assert dropped(decide(groups, ONE, NOW + 1)) == [("a", Why.YIELDS)]


# Without room


def test_while_there_is_no_room_nothing_is_parked_and_nobody_yields():
    closed = replace(ONE, closed_until=NOW + 1)
    assert decide([used("a", 0)], closed, NOW) == []
    assert decide([parked("a"), Candidate("b", warm=Warm.ALWAYS)], closed, NOW) == []
    assert parks(decide([used("a", 0)], closed, NOW + 1)) == ["a"]


def test_the_least_valuable_agent_makes_room_first():
    groups = [parked("a", 10), parked("b", 20), parked("c", 30, warm=Warm.ALWAYS), used("d", 1)]
    assert least_valuable(groups, Budget(pods=9), NOW, besides="x") == Drop("b", "s-b", Why.ROOM)
    assert least_valuable(groups, Budget(pods=9), NOW, besides="b") == Drop("a", "s-a", Why.ROOM)


def test_what_nobody_needs_makes_room_before_all_others():
    stale = Candidate("a", warm=Warm.ALWAYS, parked=waiting(fingerprint="old", expected="new"))
    assert least_valuable([parked("b", 10), parked("c", 9999), stale], ONE, NOW, besides="x").folder == "a"
    assert least_valuable([parked("b", 10), parked("c", 9999)], ONE, NOW, besides="x").folder == "c"


@pytest.mark.parametrize("state", [State.DEAD, State.LEAVING])
def test_what_holds_no_room_gives_none(state):
    gone = used("a", 0, parked=Parked("s", state, NOW))
    assert least_valuable([gone], ONE, NOW, besides="x") is None


def test_a_back_off_doubles_up_to_its_limit_and_starts_anew_when_forgiven():
    waits, off = [], BackOff()
    for _ in range(7):
        off = off.after(off.until)
        waits.append(off.until - sum(waits))
    assert waits == [FIRST_BACK_OFF, 60, 120, 240, 480, LONGEST_BACK_OFF, LONGEST_BACK_OFF]
    again = off.forgiven().after(off.until)
    assert again.until - off.until == FIRST_BACK_OFF


def test_failures_that_come_together_count_once():
    once = BackOff().after(NOW)
    assert once.after(NOW + 1) == once


# Whatever happens

FOLDERS = list("abcde")


@st.composite
def candidates(draw):
    moments = st.none() | st.integers(-4000, 400).map(lambda ago: NOW + ago)
    states = st.builds(Parked, st.uuids().map(str), st.sampled_from(State), st.just(NOW) | st.just(NOW - 1000))
    return [
        Candidate(
            folder,
            draw(st.sampled_from(Warm)),
            draw(st.sampled_from(Priority)),
            draw(moments),
            draw(moments),
            draw(st.booleans()),
            draw(st.none() | states),
        )
        for folder in FOLDERS
    ]


@given(groups=candidates(), places=st.integers(0, 5), data=st.data())
def test_the_order_of_the_groups_changes_nothing(groups, places, data):
    shuffled = data.draw(st.permutations(groups))
    ranks = [found for group in groups if (found := rank(group, ONE, NOW))]
    assert len(set(ranks)) == len(ranks)
    one, other = (decide(each, Budget(pods=places), NOW) for each in (groups, shuffled))
    assert set(one) == set(other)
    assert parks(one) == parks(other)


class Calm(RuleBasedStateMachine):
    """Whatever happens in whatever order: the budget holds, and left alone, the best are parked and all is still."""

    @initialize(
        places=st.integers(0, 4),
        warm=st.lists(st.sampled_from([Warm.AUTO, Warm.AUTO, Warm.ALWAYS, Warm.NEVER]), min_size=5, max_size=5),
        priorities=st.lists(st.sampled_from(Priority), min_size=5, max_size=5),
    )
    def begin(self, places, warm, priorities):
        self.now, self.budget, self.sessions = NOW, Budget(pods=places), 0
        self.wanted = dict.fromkeys(FOLDERS, 0)
        self.groups = {
            folder: Candidate(folder, *each)
            for folder, each in zip(FOLDERS, zip(warm, priorities, strict=True), strict=True)
        }

    def change(self, folder, **more):
        self.groups[folder] = replace(self.groups[folder], **more)

    def becomes(self, folder, state):
        if (held := self.groups[folder].parked) is not None and held.state is not State.LEAVING:
            self.change(folder, parked=replace(held, state=state, since=self.now))

    @rule(folder=st.sampled_from(FOLDERS))
    def a_message_comes(self, folder):
        self.change(folder, used=self.now)

    @rule(folder=st.sampled_from(FOLDERS), ahead=st.sampled_from([-5, 200, 400]))
    def a_task_is_planned(self, folder, ahead):
        self.change(folder, due=self.now + ahead)

    @rule(folder=st.sampled_from(FOLDERS))
    def a_message_waits(self, folder):
        self.change(folder, busy=True)

    @rule(folder=st.sampled_from(FOLDERS))
    def a_session_begins(self, folder):
        held = self.groups[folder].parked
        left = held if held is not None and held.state is State.LEAVING else None
        self.change(folder, busy=True, parked=left, due=None)

    @rule(folder=st.sampled_from(FOLDERS))
    def a_session_is_over(self, folder):
        self.change(folder, busy=False)

    @rule(folder=st.sampled_from(FOLDERS))
    def an_agent_waits(self, folder):
        self.becomes(folder, State.WAITING)

    @rule(folder=st.sampled_from(FOLDERS))
    def an_agent_dies(self, folder):
        self.becomes(folder, State.DEAD)

    @rule(folder=st.sampled_from(FOLDERS))
    def settings_change(self, folder):
        self.wanted[folder] += 1

    @rule(places=st.integers(0, 4))
    def the_budget_changes(self, places):
        self.budget = replace(self.budget, pods=places)

    @rule(seconds=st.sampled_from([1, 60, SETTLE, 3601]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(seconds=st.sampled_from([0, 30, 600]))
    def there_is_no_room(self, seconds):
        self.budget = replace(self.budget, closed_until=self.now + seconds)

    @rule()
    def what_leaves_is_gone(self):
        for folder, group in self.groups.items():
            if group.parked is not None and group.parked.state is State.LEAVING:
                self.change(folder, parked=None)

    @rule()
    def look(self):
        self.done()

    @property
    def parked(self):
        return sum(group.parked is not None for group in self.groups.values())

    def done(self):
        """Carry out what is decided now; how much that was."""
        for folder, group in self.groups.items():
            if group.parked is not None:
                self.change(folder, parked=replace(group.parked, expected=str(self.wanted[folder])))
        actions = decide(list(self.groups.values()), self.budget, self.now)
        for action in actions:
            held = self.groups[action.folder].parked
            if isinstance(action, Park):
                assert held is None
                assert not self.groups[action.folder].busy
                assert self.parked < self.budget.places
                self.sessions += 1
                made = str(self.wanted[action.folder])
                self.change(action.folder, parked=Parked(str(self.sessions), State.STARTING, self.now, made))
            else:
                assert held is not None
                assert (held.session, held.state is State.LEAVING) == (action.session, False)
                self.becomes(action.folder, State.LEAVING)
        return len(actions)

    @rule()
    def all_is_left_alone(self):
        """Nothing happens but that agents come to wait and go as they are told."""
        counts = [self.a_quiet_look() for _ in range(140)]  # 1400 s: tasks come near, and everyone has rested
        assert sum(counts) <= 4 * len(FOLDERS)
        assert sum(counts[-30:]) <= 2 * len(FOLDERS)  # of groups that were used an hour ago
        here = {folder for folder, group in self.groups.items() if group.parked is not None}
        ranked = sorted(
            place
            for group in self.groups.values()
            if (place := rank(group, self.budget, self.now)) and (group.parked or not group.busy)
        )
        assert here == {place.folder for place in ranked[: self.budget.places]}
        assert not [folder for folder in here if self.groups[folder].parked.stale and not self.groups[folder].busy]

    def a_quiet_look(self):
        done = self.done()
        self.what_leaves_is_gone()
        for folder in FOLDERS:
            held = self.groups[folder].parked
            if held is not None and held.state is State.STARTING:
                self.becomes(folder, State.WAITING)
        self.now += 10
        return done


TestCalm = Calm.TestCase
