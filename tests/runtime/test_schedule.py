"""The queue's decisions: v1's rules as examples, the guarantees as a state machine."""

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from nanoclaw_runtime.domain.schedule import Ending, GiveUp, Phase, Pipe, Retry, Schedule, Start


def test_a_first_message_starts_a_session_at_once():
    assert Schedule(limit=2).message("main") == [Start("main")]


def test_a_second_message_while_starting_is_piped_once_the_session_is_live():
    schedule = Schedule(limit=2)
    schedule.message("main")
    assert schedule.message("main") == []
    assert schedule.live("main") == [Pipe("main")]


def test_a_message_to_a_live_session_is_piped():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.live("main")
    assert schedule.message("main") == [Pipe("main")]


def test_groups_above_the_limit_wait_in_order_of_arrival():
    schedule = Schedule(limit=1)
    schedule.message("a")
    assert schedule.message("b") == []
    assert schedule.message("c") == []
    assert (schedule.position("b"), schedule.position("c")) == (1, 2)
    assert schedule.ended("a", Ending.DONE) == [Start("b")]
    assert schedule.position("c") == 1


def test_a_message_to_a_closing_session_gets_a_session_of_its_own():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.live("main")
    schedule.closing("main")
    assert schedule.message("main") == []
    assert schedule.ended("main", Ending.DONE) == [Start("main")]


def test_a_refused_pipe_gets_a_session_of_its_own():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.live("main")
    assert schedule.message("main") == [Pipe("main")]
    schedule.refused("main")
    assert schedule.ended("main", Ending.DONE) == [Start("main")]


def test_own_backlog_goes_before_groups_that_wait():
    schedule = Schedule(limit=1)
    schedule.message("a")
    schedule.message("b")
    assert schedule.ended("a", Ending.MORE) == [Start("a")]


def test_failures_back_off_five_times_and_are_then_given_up():
    schedule = Schedule(limit=1)
    schedule.message("main")
    delays = []
    for _ in range(5):
        (action,) = schedule.ended("main", Ending.FAILED)
        assert isinstance(action, Retry)
        delays.append(action.delay)
        assert schedule.retry_due("main") == [Start("main")]
    assert delays == [timedelta(seconds=seconds) for seconds in (5, 10, 20, 40, 80)]
    assert schedule.ended("main", Ending.FAILED) == [GiveUp("main")]
    assert schedule.phase("main") is Phase.QUIET


def test_a_failure_frees_the_slot_for_another_group():
    schedule = Schedule(limit=1)
    schedule.message("a")
    schedule.message("b")
    assert schedule.ended("a", Ending.FAILED) == [Retry("a", timedelta(seconds=5)), Start("b")]


def test_a_message_during_the_back_off_starts_at_once_and_the_late_timer_does_nothing():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.ended("main", Ending.FAILED)
    assert schedule.message("main") == [Start("main")]
    assert schedule.retry_due("main") == []


def test_a_success_resets_the_count_of_failures():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.ended("main", Ending.FAILED)
    schedule.retry_due("main")
    schedule.ended("main", Ending.DONE)
    schedule.message("main")
    assert schedule.ended("main", Ending.FAILED) == [Retry("main", timedelta(seconds=5))]


def test_adopted_sessions_hold_slots_even_above_the_limit():
    schedule = Schedule(limit=1)
    schedule.adopted("a")
    schedule.adopted("b")
    assert schedule.message("c") == []
    assert schedule.ended("a", Ending.DONE) == []
    assert schedule.ended("b", Ending.DONE) == [Start("c")]


def test_an_adopted_session_takes_follow_ups_only_once_it_is_live():
    schedule = Schedule(limit=1)
    schedule.adopted("a")
    assert schedule.message("a") == []
    assert schedule.live("a") == [Pipe("a")]


def test_a_pipe_refused_after_its_session_ended_starts_the_next():
    schedule = Schedule(limit=1)
    schedule.message("main")
    schedule.live("main")
    assert schedule.message("main") == [Pipe("main")]
    schedule.ended("main", Ending.DONE)
    assert schedule.refused("main") == [Start("main")]


class Guarantees(RuleBasedStateMachine):
    """Whatever happens in whatever order: the limit holds, one session a group, nobody is forgotten."""

    folders = Bundle("folders")

    @initialize(limit=st.integers(1, 3))
    def begin(self, limit):
        self.limit = limit
        self.schedule = Schedule(limit)
        self.running: dict[str, str] = {}
        self.owed: set[str] = set()
        self.retrying: set[str] = set()

    def carry_out(self, actions):
        for action in actions:
            match action:
                case Start(folder):
                    assert folder not in self.running, "two sessions of one group"
                    self.running[folder] = "starting"
                    self.owed.discard(folder)
                    self.retrying.discard(folder)
                case Pipe(folder):
                    assert self.running[folder] == "live"
                    self.owed.discard(folder)
                case Retry(folder):
                    self.retrying.add(folder)
                case GiveUp(folder):
                    self.owed.discard(folder)

    @rule(target=folders, folder=st.sampled_from(["a", "b", "c", "d", "e"]))
    def message(self, folder):
        self.owed.add(folder)
        self.carry_out(self.schedule.message(folder))
        return folder

    @rule(folder=folders)
    def live(self, folder):
        if self.running.get(folder) == "starting":
            self.running[folder] = "live"
            self.carry_out(self.schedule.live(folder))

    @rule(folder=folders)
    def closing(self, folder):
        if folder in self.running:
            self.running[folder] = "closing"
            self.schedule.closing(folder)

    @rule(folder=folders, ending=st.sampled_from(Ending))
    def ended(self, folder, ending):
        if self.running.pop(folder, None):
            if ending is not Ending.DONE:
                self.owed.add(folder)
            self.carry_out(self.schedule.ended(folder, ending))

    @rule(folder=folders)
    def a_pipe_is_refused(self, folder):
        if self.running.get(folder) != "starting":
            self.owed.add(folder)
            self.carry_out(self.schedule.refused(folder))

    @rule(folder=folders)
    def retry(self, folder):
        self.retrying.discard(folder)
        self.carry_out(self.schedule.retry_due(folder))

    @invariant()
    def the_limit_holds(self):
        if hasattr(self, "schedule"):
            assert self.schedule.active == len(self.running) <= self.limit

    @invariant()
    def nobody_who_is_owed_an_answer_is_forgotten(self):
        for folder in getattr(self, "owed", ()):
            waits = self.schedule.position(folder) is not None
            assert waits or folder in self.running or folder in self.retrying

    @invariant()
    def nobody_waits_while_a_slot_is_free(self):
        if hasattr(self, "schedule") and self.schedule.waiting:
            assert self.schedule.active >= self.limit


TestGuarantees = Guarantees.TestCase
