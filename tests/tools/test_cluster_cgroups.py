"""On ordinary folders: which controllers a kernel offers is not asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from nanoclaw_dev.cluster import cgroups
from nanoclaw_dev.cluster.cgroups import Hierarchies


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "hierarchies", lambda: Hierarchies(1, (tmp_path,), frozenset()))
    return tmp_path


def test_what_is_removed_goes_with_the_parents_that_nobody_else_needs(tree):
    cgroups.create("/nanoclaw/one/node-1")
    cgroups.create("/nanoclaw/two/node-1")
    cgroups.remove("/nanoclaw/one/node-1")
    assert [folder.name for folder in (tree / "nanoclaw").iterdir()] == ["two"]
    cgroups.remove("/nanoclaw/two/node-1")
    assert list(tree.iterdir()) == []


def test_clusters_come_and_go_side_by_side(tree):
    def come_and_go(name):
        for _ in range(300):
            cgroups.create(f"/nanoclaw/{name}/node-1")
            assert (tree / "nanoclaw" / name / "node-1").is_dir()
            cgroups.remove(f"/nanoclaw/{name}/node-1")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come_and_go, ("one", "two", "three", "four"))) == [None] * 4
    assert list(tree.iterdir()) == []
