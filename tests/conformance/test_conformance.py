"""Every behaviour of NanoClaw 1.1.0 that a host has to keep, and the tests that show ours keeps it.

The lists beside this file are the conformance statement, in our own words. An entry names the tests
that show it (below `tests/`, a case of a table in brackets), or says why we do otherwise, or both.
What is checked here: no entry is empty, every test it names exists, and each group of NanoClaw's own
test cases is answered in full.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

TESTS = Path(__file__).parent.parent
LISTS = sorted(Path(__file__).parent.glob("*.yaml"))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Strict):
    does: str = Field(min_length=10)
    """What NanoClaw does, as its users and agents see it."""
    shown: list[str] = []
    """Tests that show it, or the behaviour we have in its place."""
    instead: str | None = Field(default=None, min_length=20)
    """What we do otherwise, and why."""

    @model_validator(mode="after")
    def _says_something(self) -> Entry:
        if not self.shown and self.instead is None:
            raise ValueError(f"{self.does!r} has no test and no reason to have none")
        return self


class Topic(_Strict):
    topic: str
    cases: int = 0
    """How many cases NanoClaw itself, or a measurement of its agent, has for it; each of them is an entry."""
    entries: list[Entry] = Field(min_length=1)


TOPICS = [Topic.model_validate(topic) for path in LISTS for topic in yaml.safe_load(path.read_text())]


def exists(test: str) -> bool:
    """Whether `runtime/test_x.py::test_y[case]` is there; the case is one of the names the file gives to cases."""
    path, _, name = test.partition("::")
    function, _, case = name.removesuffix("]").partition("[")
    if not (TESTS / path).is_file():
        return False
    functions, cases = _read(TESTS / path)
    return function in functions and (not case or case in cases)


@cache
def _read(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The test functions of a file, those it takes from another one too, and the names of cases in its tables."""
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    cases = {text for node in ast.walk(tree) for text in _case_names(node)}
    for taken in (node for node in tree.body if isinstance(node, ast.ImportFrom)):
        if taken.module and taken.module.startswith("tests.") and taken.names[0].name == "*":
            more = _read(TESTS.parent / (taken.module.replace(".", "/") + ".py"))
            functions |= more[0]
            cases |= more[1]
    return frozenset(name for name in functions if name.startswith("test_")), frozenset(cases)


def _case_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.keyword) and node.arg in {"id", "ids"}:
        for constant in ast.walk(node.value):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant.value


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.topic)
def test_every_behaviour_is_shown_by_tests_that_exist(topic):
    missing = [(entry.does, test) for entry in topic.entries for test in entry.shown if not exists(test)]
    assert missing == []


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.topic)
def test_every_case_of_nanoclaws_own_is_answered(topic):
    assert len(topic.entries) >= topic.cases


def test_the_lists_say_each_thing_once_and_leave_no_group_of_cases_out():
    said = [entry.does for topic in TOPICS for entry in topic.entries]
    assert sorted(set(said)) == sorted(said)
    assert sum(topic.cases for topic in TOPICS) == 151


@pytest.mark.parametrize(
    "test",
    [
        "conformance/test_nothing.py::test_it",
        "conformance/test_conformance.py::test_it",
        "conformance/test_conformance.py::exists",
        "conformance/test_conformance.py",
        "runtime/test_lifetime.py::test_verdict[no such case]",
    ],
)
def test_a_test_that_is_not_there_is_noticed(test):
    assert not exists(test)


def test_a_behaviour_without_a_test_needs_a_reason():
    with pytest.raises(ValueError, match="no test and no reason"):
        Entry(does="NanoClaw does something")
