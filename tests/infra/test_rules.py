"""Combinations that can never work, each told in one exact sentence, and none where they do work."""

# ruff: noqa: E501 (each sentence is what a person reads: one line)

from __future__ import annotations

import pytest

from tests.infra.recording import settings
from tests.infra.refused import merged, read, told

SETTINGS = "nanoclaw:settings."
CLAIMS = "nanoclaw-global, nanoclaw-group-family, nanoclaw-group-main, nanoclaw-ipc-family, nanoclaw-ipc-main, nanoclaw-project, nanoclaw-sessions-family, nanoclaw-sessions-main, nanoclaw-store"
OWN_CLASS = {"name": "own", "provisioner": "ebs.csi.aws.com"}
METADATA = "169.254.169.254/32"
MAIN, FAMILY = ({"folder": folder, "name": folder.title()} for folder in ("main", "family"))


def stack(**changes):
    """The settings of the stack `local` with `changes` laid over them."""
    return merged(settings("local"), changes)


def rule(says, *, id, keys=None, **changes):  # noqa: A002 (as pytest.param has it)
    return pytest.param(changes, keys or {}, SETTINGS + says, id=id)


RULES = [
    rule(
        "storage.accessMode is 'ReadWriteOncePod', but the controller and an agent mount the claim at the same time; write 'ReadWriteMany', 'ReadWriteOnce' with runtime.placement 'controller-node', or runtime.transport 'bridge'",
        storage={"accessMode": "ReadWriteOncePod"},
        id="one pod for all",
    ),
    rule(
        "storage.accessMode is 'ReadWriteOnce', so controller and agents must share a node, and runtime.placement is 'anywhere'; write 'controller-node' there, runtime.transport 'bridge', or use 'ReadWriteMany'",
        storage={"accessMode": "ReadWriteOnce"},
        id="one node for all, and agents anywhere",
    ),
    rule(
        "storage.accessModes.ipc is 'ReadWriteOnce', so controller and agents must share a node, and runtime.placement is 'anywhere'; write 'controller-node' there, runtime.transport 'bridge', or use 'ReadWriteMany'",
        storage={"accessModes": {"ipc": "ReadWriteOnce"}},
        id="one node for one purpose",
    ),
    rule(
        "storage.makeClass: the volumes of 'ebs.csi.aws.com' are mounted by one node at a time each, and the claim 'nanoclaw-project' asks for 'ReadWriteMany'; write accessMode 'ReadWriteOnce' with runtime.transport 'bridge' or runtime.placement 'controller-node', or a class of a shared file system",
        storage={"storageClass": "own", "makeClass": OWN_CLASS},
        id="block storage for what is shared",
    ),
    rule(
        "storage.keep names 'family', which is among the groups; remove it from one of the two",
        storage={"keep": ["family"]},
        id="kept and there",
    ),
    rule(
        "storage.groupSizes names 'team', which is no group of the stack; correct it",
        storage={"groupSizes": {"team": {"group": "1Gi"}}},
        id="sizes for nobody",
    ),
    rule(
        "storage.groupSizes has no effect with nanoclaw:layout 'shared', where all groups share one claim; write sizes.data, or choose another layout",
        storage={"groupSizes": {"main": {"group": "1Gi"}}},
        keys={"layout": "shared"},
        id="sizes of groups in one claim",
    ),
    rule(
        f"storage.adopt names 'my-old-claim', which is no claim of this stack; there are {CLAIMS}",
        storage={"adopt": ["my-old-claim"]},
        id="a claim of somebody else",
    ),
    rule(
        "runtime.placement is 'controller-node', but with the pattern 'nodelocal' each group has a node of its own; remove it",
        runtime={"pattern": "nodelocal", "placement": "controller-node"},
        id="two ideas of where groups are",
    ),
    rule(
        "openshift.scc is 'restricted-v2', which forbids the folders of nodes that the pattern 'nodelocal' lives on; name one of the stack's own and set openshift.makeScc, name one that permits hostPath, or use the pattern 'job'",
        runtime={"pattern": "nodelocal"},
        keys={"platform": "openshift"},
        id="folders of nodes under restricted-v2",
    ),
    rule(
        "openshift is for OpenShift; remove it, or write nanoclaw:platform 'openshift'",
        openshift={"scc": "nonroot-v2"},
        id="a constraint where there are none",
    ),
    rule(
        "openshift is for OpenShift; remove it, or write nanoclaw:platform 'openshift'",
        openshift={"bind": True},
        id="a binding where there is nothing to bind",
    ),
    rule(
        "runtime.registration is true, but with the pattern 'nodelocal' the stack alone says which groups there are, and each gets a node; declare them in groups, and remove it",
        runtime={"pattern": "nodelocal", "registration": True},
        id="groups at run time, and no node for them",
    ),
    rule(
        "runtime.mountAllowlist.allowedRoots[1].path is '/var/lib', which leads to the folders of all groups in runtime.nodeRoot ('/var/lib/nanoclaw'); name a folder beside it",
        runtime={
            "pattern": "nodelocal",
            "mountAllowlist": {"hostPathsOnNodes": True, "allowedRoots": [{"path": "/srv"}, {"path": "/var/lib"}]},
        },
        namespace={"create": False},
        id="a way into the folders of others",
    ),
    rule(
        "openshift.scc is 'anyuid', which forbids the folders of nodes that the pattern 'nodelocal' lives on; name one of the stack's own and set openshift.makeScc, name one that permits hostPath, or use the pattern 'job'",
        runtime={"pattern": "nodelocal"},
        openshift={"scc": "anyuid"},
        keys={"platform": "openshift"},
        id="any user and no folders of nodes",
    ),
    rule(
        "openshift.makeScc is true, but only the pattern 'nodelocal' needs more than 'restricted-v2'; remove it",
        openshift={"scc": "ours", "makeScc": True},
        keys={"platform": "openshift"},
        id="a constraint that nobody needs",
    ),
    rule(
        "openshift.makeScc is true, and 'privileged' is a constraint of OpenShift's own; write another name in openshift.scc, like 'nanoclaw-nodelocal'",
        runtime={"pattern": "nodelocal"},
        openshift={"scc": "privileged", "makeScc": True},
        keys={"platform": "openshift"},
        id="a constraint of OpenShift's own",
    ),
    rule(
        "openshift.bind is true, but a constraint that the stack makes names its accounts itself; remove it",
        runtime={"pattern": "nodelocal"},
        openshift={"scc": "ours", "makeScc": True, "bind": True},
        keys={"platform": "openshift"},
        id="a constraint made and bound",
    ),
    rule(
        "runtime.fixPermissions is true, which takes a container that runs as root, and the namespace this stack makes enforces Pod Security 'restricted', which forbids it; use a storage class whose driver obeys fsGroup, or set namespace.create to false and name a namespace that enforces 'baseline'",
        runtime={"fixPermissions": True},
        id="root where nobody may be",
    ),
    rule(
        "runtime.fixPermissions is true, which takes a container that runs as root, but on OpenShift volumes are the namespace's own user's already, and nobody is root; remove it",
        runtime={"fixPermissions": True},
        keys={"platform": "openshift"},
        id="root on OpenShift",
    ),
    rule(
        "groups[0].pattern is 'statefulset', but the stack's pattern 'nodelocal' keeps every group in folders of nodes; remove it",
        runtime={"pattern": "nodelocal"},
        groups=[MAIN | {"pattern": "statefulset"}],
        id="a pattern of its own where there are no claims",
    ),
    rule(
        "groups[0].ephemeral is true, but with the pattern 'job' no node takes a group's data with it; remove it",
        groups=[MAIN | {"ephemeral": True}],
        id="nothing to begin anew",
    ),
    rule(
        "runtime.parking.pods is left out, and 1 group is to be parked always (main): at most 0 of them would be; write 1 or more there, or warm 'auto' at the groups",
        groups=[MAIN | {"warm": "always"}],
        id="parked always, and no budget",
    ),
    rule(
        "runtime.parking.pods is 1, and 2 groups are to be parked always (main, family): at most 1 of them would be; write 2 or more there, or warm 'auto' at the groups",
        runtime={"parking": {"pods": 1}},
        groups=[MAIN | {"warm": "always"}, FAMILY | {"warm": "always"}],
        id="more parked always than the budget has",
    ),
    rule(
        "runtime.parking.memory is '48Mi', and 2 groups are to be parked always (main, family), which takes 64Mi; raise it, or write warm 'auto' at the groups",
        runtime={"parking": {"pods": 2, "memory": "48Mi"}},
        groups=[MAIN | {"warm": "always"}, FAMILY | {"warm": "always"}],
        id="more memory parked always than the budget has",
    ),
    rule(
        "runtime.parking.memory is '96Mi', and 2 groups are to be parked always (main, family), which takes 160Mi; raise it, or write warm 'auto' at the groups",
        runtime={"parking": {"pods": 2, "memory": "96Mi"}, "transport": "bridge"},
        groups=[MAIN | {"warm": "always"}, FAMILY | {"warm": "always"}],
        id="memory parked always without that of the containers beside agents",
    ),
    rule(
        "namespace.quota.pods is '7', and 5 sessions and 2 parked agents with the controller and their claims need 8; raise it, or lower runtime.maxConcurrentSessions or runtime.parking.pods",
        runtime={"pattern": "statefulset"},
        namespace={"quota": {"pods": "7"}},
        id="too few pods for those that are parked",
    ),
    rule(
        "namespace.quota.requests.cpu is '399m', and 5 sessions with the controller and their claims need 0.4; raise it, or lower runtime.maxConcurrentSessions",
        runtime={"transport": "bridge"},
        namespace={"quota": {"requests.cpu": "399m"}},
        id="too little CPU for the containers beside agents",
    ),
    rule(
        "namespace.quota.pods is '5', and 5 sessions with the controller and their claims need 6; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"pods": "5"}},
        id="too few pods",
    ),
    rule(
        "namespace.quota.requests.cpu is '300m', and 5 sessions with the controller and their claims need 0.35; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"requests.cpu": "300m"}},
        id="too little CPU",
    ),
    rule(
        "namespace.quota.cpu is '300m', and 5 sessions with the controller and their claims need 0.35; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"cpu": "300m"}},
        id="too little CPU by its short name",
    ),
    rule(
        "namespace.quota.limits.memory is '1Gi', and 5 sessions with the controller and their claims need 1152Mi; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"limits.memory": "1Gi"}},
        id="too little memory",
    ),
    rule(
        "namespace.quota.requests.storage is '128Mi', and 5 sessions with the controller and their claims need 384Mi; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"requests.storage": "128Mi"}},
        id="too little storage",
    ),
    rule(
        "namespace.quota.persistentvolumeclaims is '0', and 5 sessions with the controller and their claims need 9; raise it, or lower runtime.maxConcurrentSessions",
        namespace={"quota": {"persistentvolumeclaims": "0"}},
        id="no claims",
    ),
    rule(
        f"network.agents[0] opens '0.0.0.0/0' to agents, and with it the cloud's metadata at '{METADATA}'; add that to `except`",
        network={"apiServer": None, "agents": [{"cidr": "0.0.0.0/0"}]},
        id="everything, the cloud's metadata included",
    ),
    rule(
        "network.agents[0] opens '10.0.0.0/8' to agents, and with it the API server at '10.100.0.1/32'; add that to `except`",
        network={"agents": [{"cidr": "10.0.0.0/8"}]},
        id="the API server for agents",
    ),
    rule(
        "gateway.serves.upstream is 'https://models.example', and nothing lets the gateway reach it; say where it is in network.gateway",
        gateway={"enabled": True, "serves": {"upstream": "https://models.example"}},
        id="a model behind a closed network",
    ),
    rule(
        "runtime.channels.telegram.apiUrl is 'https://bots.example', and nothing lets the controller reach it; say where it is in network.controller",
        runtime={"channels": {"telegram": {"apiUrl": "https://bots.example"}}},
        id="bots behind a closed network",
    ),
    rule(
        "gateway.serves.groupLimits names 'team', which is no group of the stack; correct it",
        gateway={"serves": {"groupLimits": {"team": {"requestsPerMinute": 1}}}},
        id="limits for nobody",
    ),
    rule(
        "gateway.serves has costPerDay and no prices, so nothing costs; say gateway.serves.prices",
        gateway={"serves": {"limits": {"costPerDay": 5}}},
        id="a budget that is never used up",
    ),
    rule(
        "runtime.agent.env.HTTPS_PROXY leads agents past the gateway; remove it, or set gateway.enabled to false",
        gateway={"enabled": True},
        runtime={"agent": {"env": {"HTTPS_PROXY": "http://proxy.example"}}},
        id="a way past the gateway",
    ),
]


def test_one_claim_for_all_and_the_bridge_exclude_each_other():
    assert told(settings=stack(runtime={"transport": "bridge"}), layout="shared") == (
        SETTINGS
        + "runtime: with the layout 'shared' all pods mount one ReadWriteMany claim, which 'bridge' is there to avoid; write transport 'volume', or layout 'per-group'",
    )


@pytest.mark.parametrize(("changes", "keys", "sentence"), RULES)
def test_what_can_never_work_is_told(changes, keys, sentence):
    assert told(settings=stack(**changes), **keys) == (sentence,)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param({}, {}, id="nothing special"),
        pytest.param(
            {"storage": {"accessMode": "ReadWriteOnce"}, "runtime": {"placement": "controller-node"}}, {}, id="one node"
        ),
        pytest.param({"storage": {"accessModes": {"store": "ReadWriteOncePod"}}}, {}, id="a database for one pod"),
        *(
            pytest.param(
                {"storage": {"accessMode": mode}, "runtime": {"transport": "bridge"}}, {}, id=f"bridge, {mode}"
            )
            for mode in ("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
        ),
        pytest.param(
            {"runtime": {"pattern": "nodelocal"}, "storage": {"keep": ["main"]}}, {}, id="claims for the way back"
        ),
        pytest.param(
            {"runtime": {"pattern": "nodelocal"}, "openshift": {"scc": "ours", "makeScc": True}},
            {"platform": "openshift"},
            id="a constraint of the stack's own",
        ),
        pytest.param(
            {"runtime": {"fixPermissions": True}, "namespace": {"create": False}}, {}, id="root in somebody's namespace"
        ),
        pytest.param(
            {"runtime": {"pattern": "statefulset"}, "groups": [MAIN | {"warm": "always", "pattern": "job"}]},
            {},
            id="a group of its own mind",
        ),
        pytest.param(
            {"runtime": {"pattern": "nodelocal"}, "groups": [MAIN | {"ephemeral": True}]},
            {},
            id="a group to begin anew",
        ),
        pytest.param(
            {"storage": {"accessMode": "ReadWriteOnce"}, "runtime": {"pattern": "nodelocal"}}, {}, id="no claims"
        ),
        pytest.param(
            {"storage": {"databaseStorageClass": "own", "makeClass": OWN_CLASS}}, {}, id="block for databases"
        ),
        pytest.param(
            {"storage": {"keep": ["team"], "groupSizes": {"team": {"group": "1Gi"}}}}, {}, id="a kept group's size"
        ),
        pytest.param({"storage": {"adopt": ["nanoclaw-group-main"]}}, {}, id="a claim that was there"),
        pytest.param({"storage": {"keep": ["team"], "adopt": ["nanoclaw-group-team"]}}, {}, id="a kept group's claim"),
        pytest.param(
            {"openshift": {"scc": "nonroot-v2", "bind": True}}, {"platform": "openshift"}, id="another constraint"
        ),
        pytest.param(
            {"runtime": {"pattern": "nodelocal"}, "openshift": {"scc": "hostaccess"}},
            {"platform": "openshift"},
            id="folders of nodes where they are allowed",
        ),
        pytest.param({"namespace": {"quota": {"pods": "6", "requests.cpu": "350m"}}}, {}, id="a quota that just fits"),
        pytest.param({"namespace": {"quota": {"count/jobs.batch": "1"}}}, {}, id="a quota of what we do not count"),
        pytest.param(
            {"network": {"agents": [{"cidr": "0.0.0.0/0", "except": [METADATA, "10.0.0.0/8"]}]}},
            {},
            id="all but the bad",
        ),
        pytest.param({"network": {"enabled": False, "agents": [{"cidr": "0.0.0.0/0"}]}}, {}, id="an open network"),
        pytest.param(
            {"runtime": {"registration": True}, "gateway": {"serves": {"groupLimits": {"team": {}}}}},
            {},
            id="limits of a group that may come",
        ),
    ],
)
def test_what_works_is_taken(changes, keys):
    read(settings=stack(**changes), **keys)


def test_every_rule_tells_on_its_own():
    both = stack(openshift={"bind": True}, storage={"accessMode": "ReadWriteOnce"}, namespace={"quota": {"pods": "1"}})

    assert [sentence.split(" ")[0] for sentence in told(settings=both)] == [
        "nanoclaw:settings.storage.accessMode",
        "nanoclaw:settings.openshift",
        "nanoclaw:settings.namespace.quota.pods",
    ]
