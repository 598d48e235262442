from __future__ import annotations

import pytest

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import MOST_NODES, Instance
from nanoclaw_dev.cluster.shape import Shape
from nanoclaw_dev.errors import SetupError


@pytest.fixture
def instance(tmp_path):
    return Instance("some", tmp_path)


def test_a_cluster_has_one_node_unless_it_is_told(instance):
    assert Shape.of(instance) == Shape(nodes=1, fast_failure=False)
    assert [node.name for node in Cluster(instance).nodes] == ["node-1"]


def test_what_was_chosen_once_holds_until_something_else_is(instance):
    Shape.of(instance, nodes=3, fast_failure=True).record(instance)
    assert Shape.of(instance) == Shape(nodes=3, fast_failure=True)
    assert Shape.of(instance, nodes=2) == Shape(nodes=2, fast_failure=True)
    assert Shape.of(instance, fast_failure=False) == Shape(nodes=3, fast_failure=False)
    assert [node.name for node in Cluster(instance).nodes] == ["node-1", "node-2", "node-3"]


@pytest.mark.parametrize("nodes", [0, -1, MOST_NODES + 1])
def test_a_number_of_nodes_that_cannot_be_is_refused(instance, nodes):
    with pytest.raises(SetupError, match=f"choose 1 to {MOST_NODES}"):
        Cluster(instance, nodes=nodes)


def test_a_node_that_is_not_there_is_told_with_those_that_are(instance):
    with pytest.raises(SetupError, match="'node-3': name one of node-1, node-2"):
        Cluster(instance, nodes=2).node("node-3")
