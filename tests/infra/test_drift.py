from __future__ import annotations

import copy

import pytest

from nanoclaw_infra.drift import drift_of
from nanoclaw_runtime.contract.claims import Layout
from tests.infra.recording import configuration, record


def declared(layout):
    """The objects of a stack as the state has them and as a cluster would."""
    made = [
        each for each in record("dev", configuration("dev", {"nanoclaw:layout": layout})) if each.inputs.get("kind")
    ]
    return [
        ({"inputs": each.inputs, "id": f"nanoclaw-dev/{each.object_name}"}, {"metadata": {}, **each.inputs})
        for each in made
    ]


@pytest.mark.parametrize("layout", list(Layout))
def test_a_cluster_that_has_what_the_stack_declares_has_no_drift(layout):
    found = declared(layout)
    assert len(found) > 10
    assert [each for wanted, live in found for each in drift_of(wanted, live)] == []


def test_a_mount_that_somebody_turned_elsewhere_is_told_by_its_place():
    wanted, live = next(each for each in declared(Layout.PER_GROUP) if each[1]["kind"] == "Deployment")
    live = copy.deepcopy(live)
    mounts = live["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    turned = next(each for each in mounts if each.get("subPath"))
    turned["subPath"] = "elsewhere"

    (only,) = drift_of(wanted, live)
    assert only.field.endswith(f"volumeMounts[{turned['mountPath']}].subPath")
