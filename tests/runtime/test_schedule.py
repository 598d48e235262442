"""The queue's decisions: v1's rules as examples, the guarantees as a state machine."""

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanoclaw_runtime.contract.config import Priority
from nanoclaw_runtime.domain.schedule import (
    CLOSING_TAKES,
    HEAD_START,
    Close,
    Ending,
    GiveUp,
    Phase,
    Pipe,
    Retry,
    Schedule,
    Start,
    StartTask,
    Wake,
)


def live(schedule, folder, now=0):
    """A session of the group that has answered what it was given."""
    actions = schedule.message(folder, now)
    schedule.live(folder)
    return actions + schedule.idle(folder, now)


def test_a_first_message_starts_a_session_at_once():
    assert Schedule(2).message("main", 0) == [Start("main")]


def test_a_second_message_while_starting_is_piped_once_the_session_is_live():
    schedule = Schedule(2)
    schedule.message("main", 0)
    assert schedule.message("main", 1) == []
    assert schedule.live("main") == [Pipe("main")]


def test_a_message_to_a_live_session_is_piped():
    schedule = Schedule(1)
    live(schedule, "main")
    assert schedule.message("main", 1) == [Pipe("main")]


def test_only_one_session_of_a_group_runs_at_a_time():
    schedule = Schedule(2)
    schedule.message("main", 0)
    assert schedule.task("main", "t", 0) == []
    assert schedule.active == 1


def test_groups_above_the_limit_wait_in_order_of_arrival():
    schedule = Schedule(1)
    schedule.message("a", 0)
    assert schedule.message("b", 1) == []
    assert schedule.message("c", 2) == []
    assert (schedule.position("b"), schedule.position("c")) == (1, 2)
    assert schedule.ended("a", Ending.DONE, 3) == [Start("b")]
    assert schedule.position("c") == 1


def test_a_message_to_a_closing_session_gets_a_session_of_its_own():
    schedule = Schedule(1)
    live(schedule, "main")
    schedule.closing("main")
    assert schedule.message("main", 1) == []
    assert schedule.ended("main", Ending.DONE, 2) == [Start("main")]


def test_a_refused_pipe_gets_a_session_of_its_own():
    schedule = Schedule(1)
    live(schedule, "main")
    assert schedule.message("main", 1) == [Pipe("main")]
    schedule.refused("main", 1)
    assert schedule.ended("main", Ending.DONE, 2) == [Start("main")]


def test_own_backlog_goes_before_groups_that_wait_but_not_twice_in_a_row():
    schedule = Schedule(1)
    schedule.message("a", 0)
    schedule.message("b", 1)
    assert schedule.ended("a", Ending.MORE, 2) == [Start("a")]
    assert schedule.ended("a", Ending.MORE, 3) == [Start("b")]
    assert schedule.ended("b", Ending.DONE, 4) == [Start("a")]


def test_failures_back_off_five_times_and_are_then_given_up():
    schedule, now = Schedule(1), 0.0
    schedule.message("main", now)
    delays = []
    for _ in range(5):
        (action,) = schedule.ended("main", Ending.FAILED, now)
        assert isinstance(action, Retry)
        assert schedule.phase("main") is Phase.BACKING_OFF
        delays.append(action.delay)
        now += action.delay.total_seconds()
        assert schedule.retry_due("main", now) == [Start("main")]
    assert delays == [timedelta(seconds=seconds) for seconds in (5, 10, 20, 40, 80)]
    assert schedule.ended("main", Ending.FAILED, now) == [GiveUp("main")]
    assert schedule.phase("main") is Phase.QUIET


def test_a_failure_frees_the_slot_for_another_group():
    schedule = Schedule(1)
    schedule.message("a", 0)
    schedule.message("b", 0)
    assert schedule.ended("a", Ending.FAILED, 1) == [Retry("a", timedelta(seconds=5)), Start("b")]


def test_a_message_during_the_back_off_starts_at_once_and_the_late_timer_does_nothing():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.ended("main", Ending.FAILED, 1)
    assert schedule.message("main", 2) == [Start("main")]
    assert schedule.retry_due("main", 6) == []


def test_a_late_timer_does_not_shorten_the_back_off_of_the_next_failure():
    schedule = Schedule(1)
    schedule.message("main", 0)
    assert schedule.ended("main", Ending.FAILED, 1) == [Retry("main", timedelta(seconds=5))]
    assert schedule.message("main", 2) == [Start("main")]
    assert schedule.ended("main", Ending.FAILED, 3) == [Retry("main", timedelta(seconds=10))]
    assert schedule.retry_due("main", 6) == []
    assert schedule.phase("main") is Phase.BACKING_OFF
    assert schedule.retry_due("main", 13) == [Start("main")]


def test_a_success_resets_the_count_of_failures():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.ended("main", Ending.FAILED, 0)
    schedule.retry_due("main", 5)
    schedule.ended("main", Ending.DONE, 6)
    schedule.message("main", 7)
    assert schedule.ended("main", Ending.FAILED, 8) == [Retry("main", timedelta(seconds=5))]


def test_adopted_sessions_hold_slots_even_above_the_limit():
    schedule = Schedule(1)
    schedule.adopted("a", 0)
    schedule.adopted("b", 0)
    assert schedule.message("c", 0) == []
    assert schedule.ended("a", Ending.DONE, 1) == []
    assert schedule.ended("b", Ending.DONE, 1) == [Start("c")]


def test_an_adopted_session_takes_follow_ups_only_once_it_is_live():
    schedule = Schedule(1)
    schedule.adopted("a", 0)
    assert schedule.message("a", 0) == []
    assert schedule.live("a") == [Pipe("a")]


def test_a_pipe_refused_after_its_session_ended_starts_the_next():
    schedule = Schedule(1)
    live(schedule, "main")
    assert schedule.message("main", 1) == [Pipe("main")]
    schedule.ended("main", Ending.DONE, 2)
    assert schedule.refused("main", 2) == [Start("main")]


# Tasks


def test_a_task_starts_a_session_of_its_own():
    schedule = Schedule(1)
    assert schedule.task("main", "t1", 0) == [StartTask("main", "t1")]
    assert schedule.phase("main") is Phase.TASK


def test_tasks_go_before_messages_of_their_group():
    schedule = Schedule(1)
    schedule.message("a", 0)
    schedule.message("b", 1)
    schedule.task("b", "t1", 2)
    assert schedule.ended("a", Ending.DONE, 3) == [StartTask("b", "t1")]
    assert schedule.ended("b", Ending.DONE, 4) == [Start("b")]


@pytest.mark.parametrize("before", ["running", "waiting"])
def test_a_task_that_runs_or_waits_is_not_taken_twice(before):
    schedule = Schedule(1)
    if before == "waiting":
        schedule.message("main", 0)
    schedule.task("main", "t1", 0)
    assert schedule.task("main", "t1", 60) == []
    schedule.ended("main", Ending.DONE, 61)
    if before == "waiting":
        schedule.ended("main", Ending.DONE, 62)
    assert schedule.active == 0


def test_a_task_does_not_end_a_session_that_works():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.live("main")
    assert schedule.task("main", "t1", 1) == []
    assert schedule.idle("main", 2) == [Close("main")]


def test_a_task_ends_the_idle_session_of_its_own_group_once():
    schedule = Schedule(1, protection=60)
    live(schedule, "main")
    assert schedule.task("main", "t1", 1) == [Close("main")]
    assert schedule.task("main", "t2", 1) == []


def test_a_follow_up_protects_a_session_from_a_later_task():
    schedule = Schedule(1)
    live(schedule, "main")
    schedule.message("main", 1)
    assert schedule.task("main", "t1", 2) == []


def test_messages_to_a_group_that_runs_a_task_wait_for_its_end():
    schedule = Schedule(1)
    schedule.task("main", "t1", 0)
    assert schedule.message("main", 1) == []
    assert schedule.live("main") == []
    assert schedule.ended("main", Ending.DONE, 2) == [Start("main")]


def test_a_task_during_the_back_off_of_messages_leaves_their_retry_alone():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.ended("main", Ending.FAILED, 1)
    assert schedule.task("main", "t1", 2) == [StartTask("main", "t1")]
    assert schedule.ended("main", Ending.DONE, 3) == []
    assert schedule.phase("main") is Phase.BACKING_OFF
    assert schedule.retry_due("main", 6) == [Start("main")]


def test_the_messages_that_back_off_do_not_start_at_the_end_of_a_task():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.ended("main", Ending.FAILED, 1)
    schedule.task("main", "t1", 2)
    assert schedule.ended("main", Ending.MORE, 3) == []
    assert schedule.retry_due("main", 6) == [Start("main")]


def test_a_retry_that_comes_late_leaves_an_idle_session_idle():
    schedule = Schedule(1)
    schedule.message("main", 0)
    schedule.ended("main", Ending.FAILED, 1)
    schedule.task("main", "t1", 2)
    schedule.refused("main", 3)
    assert schedule.ended("main", Ending.MORE, 4) == [Start("main")]
    schedule.live("main")
    schedule.idle("main", 5)
    assert schedule.retry_due("main", 6) == []
    assert schedule.message("other", 7) == [Close("main")]


def test_an_adopted_task_is_not_started_again():
    schedule = Schedule(1)
    schedule.adopted("main", 0, task="t1")
    assert schedule.task("main", "t1", 1) == []
    assert schedule.ended("main", Ending.DONE, 2) == []


# Making room


def test_the_session_that_is_idle_longest_makes_room_for_a_group_that_waits():
    schedule = Schedule(2)
    live(schedule, "a", now=1)
    live(schedule, "b", now=2)
    assert schedule.message("c", 3) == [Close("a")]
    assert schedule.ended("a", Ending.DONE, 4) == [Start("c")]


def test_the_backlog_of_a_session_that_made_room_waits_behind_the_group_it_made_room_for():
    schedule = Schedule(1)
    live(schedule, "a", now=1)
    schedule.message("b", 2)
    schedule.message("a", 3)
    assert schedule.ended("a", Ending.DONE, 4) == [Start("b")]


def test_an_idle_session_is_protected_for_a_while():
    schedule = Schedule(1, protection=60)
    live(schedule, "a", now=100)
    assert schedule.message("b", 110) == [Wake(160)]
    assert schedule.look(160) == [Close("a")]


def test_a_session_that_became_busy_again_keeps_its_place():
    schedule = Schedule(1, protection=60)
    live(schedule, "a", now=100)
    schedule.message("b", 110)
    schedule.message("a", 150)
    assert schedule.look(160) == []
    assert schedule.idle("a", 170) == [Wake(230)]


def test_a_session_that_works_is_never_asked_to_make_room():
    schedule = Schedule(1)
    schedule.message("a", 0)
    schedule.live("a")
    assert schedule.message("b", 10_000) == []


def test_no_more_sessions_are_closed_than_groups_wait():
    schedule = Schedule(3)
    for folder in ("a", "b", "c"):
        live(schedule, folder)
    assert schedule.message("d", 1) == [Close("a")]
    assert schedule.message("e", 2) == [Close("b")]


def test_idle_sessions_are_left_alone_while_nobody_waits():
    schedule = Schedule(1)
    schedule.adopted("a", 0)
    schedule.adopted("b", 0)
    schedule.live("a")
    assert schedule.idle("a", 0) == []


# Priorities, and what a sender is told


def test_a_priority_is_a_head_start():
    priorities = {"high": Priority.HIGH, "low": Priority.LOW}
    schedule = Schedule(1, priority=lambda folder: priorities.get(folder, Priority.NORMAL))
    for moment, folder in enumerate(["running", "low", "normal", "high"]):
        schedule.message(folder, moment)
    assert [schedule.position(folder) for folder in ("high", "normal", "low")] == [1, 2, 3]


def test_a_head_start_does_not_starve_who_waits_longer():
    schedule = Schedule(1, priority=lambda folder: Priority.HIGH if folder == "high" else Priority.NORMAL)
    schedule.message("running", 0)
    schedule.message("normal", 0)
    schedule.message("high", HEAD_START[Priority.HIGH] + 1)
    assert schedule.position("normal") == 1


def test_the_estimate_counts_idle_places_first_and_then_what_sessions_took_so_far():
    schedule = Schedule(2, protection=60)
    live(schedule, "a", now=0)
    schedule.message("b", 0)
    schedule.message("c", 30)
    assert schedule.estimated_wait("c", 30) == 30 + CLOSING_TAKES
    schedule.message("d", 30)
    assert schedule.estimated_wait("d", 30) is None
    schedule.ended("b", Ending.DONE, 40)
    assert schedule.estimated_wait("d", 40) == 20 + CLOSING_TAKES
    assert schedule.estimated_wait("a", 40) is None


FOLDERS = ["a", "b", "c", "d", "e"]
PROTECTION = 10


class Guarantees(RuleBasedStateMachine):
    """Whatever happens in whatever order: the limit holds, one session a group, nobody is forgotten or starved."""

    @initialize(limit=st.integers(1, 3), priorities=st.lists(st.sampled_from(Priority), min_size=5, max_size=5))
    def begin(self, limit, priorities):
        self.limit = limit
        self.now = 0.0
        self.priorities = dict(zip(FOLDERS, priorities, strict=True))
        self.schedule = Schedule(limit, protection=PROTECTION, priority=self.priorities.__getitem__)
        self.running: dict[str, str] = {}
        self.idle: dict[str, float] = {}
        self.owed: set[str] = set()
        self.tasks: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
        self.task: dict[str, str] = {}
        self.retrying: dict[str, float] = {}
        self.since: dict[str, float] = {}
        self.overtaken: dict[str, int] = {}
        self.wakes: list[float] = []

    def carry_out(self, actions):  # noqa: C901 - one case an action
        for action in actions:
            match action:
                case Start(folder):
                    self.begun(folder, "starting")
                    self.owed.discard(folder)
                    self.retrying.pop(folder, None)
                case StartTask(folder, task):
                    self.begun(folder, "task")
                    self.tasks[folder].remove(task)
                    self.task[folder] = task
                case Pipe(folder):
                    assert self.running[folder] == "live"
                    self.owed.discard(folder)
                    self.idle.pop(folder, None)
                case Close(folder):
                    assert self.running[folder] == "live", "asked to end what takes no request"
                    assert folder in self.idle, "asked to end what works"
                    self.running[folder] = "closing"
                    del self.idle[folder]
                case Retry(folder, delay):
                    self.retrying[folder] = self.now + delay.total_seconds()
                case GiveUp(folder):
                    self.owed.discard(folder)
                case Wake(at):
                    assert at > self.now
                    self.wakes.append(at)
        for folder in FOLDERS:
            if self.schedule.position(folder) is None:
                self.since.pop(folder, None)
                self.overtaken.pop(folder, None)
            elif folder not in self.since:
                self.since[folder] = self.now
                self.overtaken[folder] = 0

    def begun(self, folder, kind):
        assert folder not in self.running, "two sessions of one group"
        self.running[folder] = kind
        mine = self.since.get(folder, self.now) - HEAD_START[self.priorities[folder]]
        for other, since in self.since.items():
            if other != folder and since - HEAD_START[self.priorities[other]] < mine:
                self.overtaken[other] += 1

    @rule(folder=st.sampled_from(FOLDERS))
    def message(self, folder):
        self.owed.add(folder)
        self.retrying.pop(folder, None)
        self.carry_out(self.schedule.message(folder, self.now))

    @rule(folder=st.sampled_from(FOLDERS), task=st.sampled_from(["t1", "t2"]))
    def a_task_is_due(self, folder, task):
        if self.task.get(folder) != task:
            self.tasks[folder].add(task)
        self.carry_out(self.schedule.task(folder, task, self.now))

    @rule(folder=st.sampled_from(FOLDERS))
    def live(self, folder):
        if self.running.get(folder) == "starting":
            self.running[folder] = "live"
        self.carry_out(self.schedule.live(folder))

    @rule(folder=st.sampled_from(FOLDERS))
    def answered_everything(self, folder):
        if self.running.get(folder) == "live":
            self.idle[folder] = self.now
        self.carry_out(self.schedule.idle(folder, self.now))

    @rule(folder=st.sampled_from(FOLDERS))
    def given_something(self, folder):
        self.idle.pop(folder, None)
        self.schedule.busy(folder)

    @rule(folder=st.sampled_from(FOLDERS))
    def closing(self, folder):
        if self.running.get(folder) in {"starting", "live"}:
            self.running[folder] = "closing"
            self.idle.pop(folder, None)
        self.schedule.closing(folder)

    @rule(folder=st.sampled_from(FOLDERS), ending=st.sampled_from(Ending))
    def ended(self, folder, ending):
        kind = self.running.pop(folder, None)
        if kind is None or (kind == "task" and ending is Ending.FAILED):
            if kind:
                self.running[folder] = kind
            return
        self.idle.pop(folder, None)
        self.task.pop(folder, None)
        if ending is not Ending.DONE:
            self.owed.add(folder)
        self.carry_out(self.schedule.ended(folder, ending, self.now))

    @rule(folder=st.sampled_from(FOLDERS))
    def a_pipe_is_refused(self, folder):
        if self.running.get(folder) != "starting":
            self.owed.add(folder)
            if folder not in self.running:
                self.retrying.pop(folder, None)
            self.carry_out(self.schedule.refused(folder, self.now))

    @rule(folder=st.sampled_from(FOLDERS), waited=st.booleans())
    def retry(self, folder, waited):
        """By its timer, or by one of an earlier failure."""
        if folder in self.retrying and waited:
            self.time_passes(max(0.0, self.retrying[folder] - self.now))
        if self.retrying.get(folder, self.now + 1) <= self.now:
            self.owed.add(folder)
            del self.retrying[folder]
        self.carry_out(self.schedule.retry_due(folder, self.now))

    @rule(seconds=st.floats(0.5, 400))
    def time_goes_on(self, seconds):
        self.time_passes(seconds)

    def time_passes(self, seconds):
        self.now += seconds
        while self.wakes and min(self.wakes) <= self.now:
            self.wakes.remove(min(self.wakes))
            self.carry_out(self.schedule.look(self.now))

    @invariant()
    @precondition(lambda self: hasattr(self, "schedule"))
    def the_limit_holds(self):
        assert self.schedule.active == len(self.running) <= self.limit

    @invariant()
    @precondition(lambda self: hasattr(self, "schedule"))
    def nobody_who_is_owed_an_answer_is_forgotten(self):
        for folder in self.owed | {folder for folder in FOLDERS if self.tasks[folder]}:
            waits = self.schedule.position(folder) is not None
            assert waits or folder in self.running or folder in self.retrying

    @invariant()
    @precondition(lambda self: hasattr(self, "schedule"))
    def nobody_waits_while_a_place_is_free(self):
        if self.schedule.waiting:
            assert self.schedule.active >= self.limit

    @invariant()
    @precondition(lambda self: hasattr(self, "schedule"))
    def nobody_waits_while_an_idle_session_could_make_room(self):
        coming = sum(kind == "closing" for kind in self.running.values())
        if self.schedule.waiting > coming:
            evictable = [folder for folder, since in self.idle.items() if since + PROTECTION <= self.now]
            assert not evictable
            assert not self.idle or self.wakes, "nobody would look again"

    @invariant()
    @precondition(lambda self: hasattr(self, "schedule"))
    def own_backlog_overtakes_a_waiting_group_at_most_once_a_session(self):
        # Ahead of it may go, once each: the backlog of every session that ran when it came, and of those before it.
        assert all(count <= self.limit + len(FOLDERS) for count in self.overtaken.values())


TestGuarantees = Guarantees.TestCase
