from __future__ import annotations

import json

import pytest

from nanoclaw_dev.cluster.enforcer import recorded_addresses


def record(folder, name, *, address="10.1.1.5/24", uid="1-2", text=None):
    """A file as libcni writes it, shortened to what is read."""
    content = {"cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_UID", uid]], "result": {"ips": [{"address": address}]}}
    (folder / name).write_text(json.dumps(content) if text is None else text)


def test_addresses_are_those_of_pods_and_not_of_their_loopback(tmp_path):
    record(tmp_path, "pods-abc-eth0")
    record(tmp_path, "pods-def-eth0", address="10.1.1.6/24", uid="3-4")
    record(tmp_path, "cni-loopback-abc-lo", address="127.0.0.1/8")
    assert recorded_addresses(tmp_path) == {"10.1.1.5": "1-2", "10.1.1.6": "3-4"}


@pytest.mark.parametrize("text", ["", '{"cniArgs": [["K8S_POD', "{}", '{"cniArgs": [], "result": {"ips": []}}'])
def test_a_record_that_is_not_complete_says_nothing_yet(tmp_path, text):
    record(tmp_path, "pods-abc-eth0", text=text)
    record(tmp_path, "pods-def-eth0", address="10.1.1.6/24", uid="3-4")
    assert recorded_addresses(tmp_path) == {"10.1.1.6": "3-4"}
