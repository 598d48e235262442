"""What the doctor makes of a cluster for a stack: every judgement as a table.

The same on a real API server: `tests/apiserver/test_prerequisites.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nanoclaw_runtime.cli import prerequisites_admission as admission
from nanoclaw_runtime.cli import prerequisites_cluster as cluster
from nanoclaw_runtime.cli import prerequisites_rights as rights
from nanoclaw_runtime.cli import prerequisites_stack
from nanoclaw_runtime.cli import prerequisites_storage as storage
from nanoclaw_runtime.cli.doctor import Verdict
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import (
    AdditionalMount,
    AgentSettings,
    AllowedSource,
    ContainerConfig,
    ControllerConfig,
    GroupSpec,
    MountAllowlist,
    Pattern,
    Platform,
    Resources,
    Scheduling,
    Transport,
)
from nanoclaw_runtime.contract.needs import (
    ApiServerNeed,
    ClaimNeed,
    CustomKinds,
    Feature,
    Kind,
    Needs,
    SecretNeed,
    Workload,
)
from nanoclaw_runtime.kube.errors import Forbidden, Invalid, Target

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FILES, BLOCK = "nfs.csi.k8s.io", "ebs.csi.aws.com"
GOOD, DOUBTFUL, BAD, SKIPPED = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.BAD, Verdict.SKIPPED


def needs(**changes) -> Needs:
    """A stack that says little."""
    agent = AgentSettings(image="registry.example/agent:1")
    common = {
        "stack": "try",
        "kubeconfig": Path("config"),
        "context": None,
        "namespace": "team",
        "makes_namespace": True,
        "pod_security": "restricted",
        "protects_data": False,
        "config": ControllerConfig(agent=agent),
        "groups": (GroupSpec(folder="main", name="Main"),),
        "kinds": (Kind("Deployment", "deployments", "apps"),),
        "features": (),
        "claims": (),
        "workloads": (
            Workload("agent", agent.image, agent.resources, agent.scheduling, 5),
            Workload("controller", "registry.example/runtime:1", Resources(), Scheduling()),
        ),
        "one_node_provisioners": (BLOCK, "kubernetes.io/aws-ebs"),
    }
    return Needs(**common | changes)


def claim(name="data", storage_class="files", mode="ReadWriteMany", size="1Gi", **more) -> ClaimNeed:
    return ClaimNeed(name, storage_class, mode, size, **{"database": False} | more)


def storage_class(name="files", provisioner=FILES, *, default=False, made="", **more):
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": made}
    settings = {"reclaimPolicy": "Retain", "allowVolumeExpansion": True, "volumeBindingMode": "WaitForFirstConsumer"}
    return {"metadata": metadata, "provisioner": provisioner} | settings | more


def there(name="data", mode="ReadWriteMany", storage_class="files", manager="kubectl", phase="Pending"):
    metadata = {"name": name, "managedFields": [{"manager": manager}]}
    spec = {"accessModes": [mode], "storageClassName": storage_class}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def place(phase="Active", **has):
    return {"metadata": {"name": "team", "labels": has}, "status": {"phase": phase}}


def daemon(name, *containers):
    pod = {"containers": [{"name": each} for each in containers]}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod}}}


def running(image, **state):
    status = {"name": "agent", "imageID": ""} | state
    return {
        "spec": {"containers": [{"name": "agent", "image": image}]},
        "status": {"containerStatuses": [status]},
    }


def quota(hard, used=None, **spec):
    return {"metadata": {"name": "team"}, "spec": {"hard": hard} | spec, "status": {"hard": hard, "used": used or {}}}


def classes(*found, claims=(), **changes):
    return storage.classes(needs(**{"claims": (claim(),)} | changes), found, claims)


def existing(*found, installed=False, claims=None):
    return storage.existing(needs(claims=claims or (claim(),)), found, installed=installed)


ESSENTIAL = Feature("policies", (1, 30), "guardrails.enabled", "`up` fails", essential=True)
NICE = Feature("half-close", (1, 30), "", "it is dropped", essential=False)
CUSTOM = CustomKinds("example.com", ("v1", "v1beta1"), ("things",), "things.enabled", "the operator of things")
DNS = {"kubernetes.io/metadata.name": "kube-system"}
TARGET = Target("create", "pods", "team", "x")
AWS = daemon("aws-node", "aws-node", "aws-eks-nodeagent")
PULL = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
DATABASE = claim(database=True, mode="ReadWriteOnce")

JUDGED = [
    # Versions and features
    pytest.param(cluster.features("v1.30.1", [ESSENTIAL]), GOOD, "v1.30.1 has all", id="new enough"),
    pytest.param(
        cluster.features("v1.29.9+rke2", [ESSENTIAL]), BAD, "Kubernetes 1.30 (OpenShift 4.17), which", id="too old"
    ),
    pytest.param(cluster.features("v1.29.9", [NICE]), DOUBTFUL, "it is dropped", id="old and works"),
    pytest.param(cluster.features("custom", [NICE]), SKIPPED, "'custom' tells nothing", id="no version"),
    pytest.param(cluster.platform(Platform.KUBERNETES, openshift=False), GOOD, "kubernetes", id="plain"),
    pytest.param(cluster.platform(Platform.KUBERNETES, openshift=True), BAD, "uid 1000 is refused", id="is OpenShift"),
    pytest.param(cluster.platform(Platform.OPENSHIFT, openshift=False), BAD, "nobody gives", id="is not OpenShift"),
    # Clocks
    pytest.param(cluster.clock(NOW, NOW + timedelta(seconds=9)), GOOD, "agree", id="same time"),
    pytest.param(cluster.clock(NOW, NOW - timedelta(seconds=61)), DOUBTFUL, "61 s ahead of this", id="it is ahead"),
    pytest.param(cluster.clock(NOW, NOW + timedelta(hours=1)), DOUBTFUL, "3600 s behind this", id="it is behind"),
    # The namespace
    pytest.param(cluster.namespace(needs(), None), GOOD, "makes it", id="no namespace yet"),
    pytest.param(cluster.namespace(needs(makes_namespace=False), None), BAD, "no namespace 'team'", id="no namespace"),
    pytest.param(
        cluster.namespace(needs(), place()), DOUBTFUL, "has it enforce Pod Security 'restricted'", id="a stranger's"
    ),
    pytest.param(cluster.namespace(needs(), place(**{labels.PART_OF: "nanoclaw"})), GOOD, "team", id="ours"),
    pytest.param(cluster.namespace(needs(), place("Terminating")), BAD, "being deleted", id="going"),
    pytest.param(
        cluster.namespace(needs(makes_namespace=False), place(**{"pod-security.kubernetes.io/enforce": "baseline"})),
        GOOD,
        "enforces Pod Security 'baseline'",
        id="given",
    ),
    # Operators
    pytest.param(cluster.custom_kinds(CUSTOM, {}), BAD, "things.enabled needs it", id="no operator"),
    pytest.param(cluster.custom_kinds(CUSTOM, {"v2": []}), BAD, "serves v2, not v1 or v1beta1", id="newer operator"),
    pytest.param(cluster.custom_kinds(CUSTOM, {"v1": ["others"]}), BAD, "lacks things", id="kind missing"),
    pytest.param(cluster.custom_kinds(CUSTOM, {"v1beta1": ["things"]}), GOOD, "things in v1beta1", id="older operator"),
    # DNS and network
    pytest.param(
        cluster.api_server(ApiServerNeed((), (443, 6443)), [("10.0.0.1", 6443)]), GOOD, "10.0.0.1:6443", id="API server"
    ),
    pytest.param(
        cluster.api_server(ApiServerNeed((), (443, 6443)), [("10.0.0.1", 16443)]),
        BAD,
        "it is at 10.0.0.1:16443, where the network policies do not let",
        id="API server at a port nobody opens",
    ),
    pytest.param(
        cluster.api_server(ApiServerNeed(("10.0.0.0/31",), (6443,)), [("10.0.0.1", 6443), ("10.0.0.2", 6443)]),
        BAD,
        "it is at 10.0.0.1:6443, 10.0.0.2:6443, where the network policies do not let",
        id="one of the API servers is not opened",
    ),
    pytest.param(
        cluster.api_server(ApiServerNeed(("10.0.0.0/24",), (6443,)), [("10.0.0.1", 6443)]), GOOD, "", id="named"
    ),
    pytest.param(cluster.api_server(ApiServerNeed((), (443,)), []), DOUBTFUL, "nothing is behind", id="nothing there"),
    pytest.param(cluster.dns(DNS, [], None), BAD, "no namespace has kubernetes.io/metadata.name", id="no DNS there"),
    pytest.param(cluster.dns(DNS, ["kube-system"], None), BAD, "no Service at port 53", id="no DNS service"),
    pytest.param(cluster.dns(DNS, ["kube-system"], 0), BAD, "has nothing behind it", id="DNS is down"),
    pytest.param(cluster.dns(DNS, ["kube-system"], 2), GOOD, "2 addresses", id="DNS"),
    pytest.param(cluster.enforcement([daemon("cilium")]), GOOD, "Cilium", id="Cilium"),
    pytest.param(cluster.enforcement([daemon("kube-flannel-ds")]), BAD, "Flannel enforces none", id="Flannel"),
    pytest.param(
        cluster.enforcement([daemon("kube-flannel"), daemon("canal")]), GOOD, "Calico", id="Flannel with Calico"
    ),
    pytest.param(cluster.enforcement([AWS]), DOUBTFUL, "AWS VPC CNI", id="AWS with its agent"),
    pytest.param(cluster.enforcement([daemon("aws-node", "aws-node")]), DOUBTFUL, "nobody", id="AWS without"),
    pytest.param(cluster.enforcement([]), DOUBTFUL, "that alone means little", id="nobody known"),
    pytest.param(cluster.node_dns([daemon("node-local-dns")]), DOUBTFUL, "node-local-dns runs", id="DNS on nodes"),
    # Storage classes
    pytest.param(classes(storage_class()), GOOD, "nfs.csi.k8s.io, for 1 claims (ReadWriteMany)", id="files"),
    pytest.param(classes(), BAD, "missing; there are none at all", id="no class"),
    pytest.param(classes(storage_class("other")), BAD, "missing; there are other", id="another class"),
    pytest.param(classes(made_class=storage_class()), GOOD, "nfs.csi.k8s.io", id="class of the stack's own"),
    pytest.param(classes(storage_class(provisioner=BLOCK)), BAD, "volumes of one node", id="block"),
    pytest.param(
        classes(storage_class(provisioner="rook-ceph.rbd.csi.ceph.com")), BAD, "volumes of one node", id="Ceph block"
    ),
    pytest.param(classes(storage_class(provisioner="x.cephfs.csi.ceph.com")), GOOD, "cephfs", id="Ceph files"),
    pytest.param(classes(storage_class(provisioner="own")), DOUBTFUL, "not known here", id="nobody knows it"),
    pytest.param(
        classes(storage_class(provisioner="own"), claims=[there(phase="Bound")]), GOOD, "own", id="has done it before"
    ),
    pytest.param(
        storage.classes(needs(claims=(DATABASE,)), [storage_class()], []),
        DOUBTFUL,
        "SQLite is slow",
        id="database on a network",
    ),
    pytest.param(classes(storage_class(allowVolumeExpansion=False)), DOUBTFUL, "cannot grow", id="fixed size"),
    pytest.param(
        classes(storage_class(reclaimPolicy="Delete"), protects_data=True), DOUBTFUL, "Delete:", id="data goes"
    ),
    pytest.param(classes(storage_class(reclaimPolicy="Delete")), GOOD, "nfs", id="data may go"),
    pytest.param(
        storage.classes(
            needs(claims=(claim(mode="ReadWriteOnce"),)),
            [storage_class(provisioner=BLOCK, volumeBindingMode="Immediate")],
            [],
        ),
        DOUBTFUL,
        "different zones",
        id="binds at once",
    ),
    pytest.param(
        storage.classes(
            needs(claims=(claim(mode="ReadWriteOncePod"),)), [storage_class(provisioner="kubernetes.io/aws-ebs")], []
        ),
        DOUBTFUL,
        "only CSI drivers can do ReadWriteOncePod",
        id="no CSI",
    ),
    pytest.param(
        storage.classes(
            needs(claims=(claim(mode="ReadWriteOnce"),)),
            [storage_class(provisioner="kubernetes.io/no-provisioner")],
            [],
        ),
        DOUBTFUL,
        "made by hand",
        id="by hand",
    ),
    pytest.param(
        storage.classes(needs(claims=(claim(storage_class=None),)), [storage_class()], []),
        BAD,
        "none is the default; there are files",
        id="no default",
    ),
    pytest.param(
        storage.classes(
            needs(claims=(claim(storage_class=None),)),
            [
                storage_class("a", BLOCK, default=True, made="1"),
                storage_class("b", default=True, made="2"),
            ],
            [],
        ),
        DOUBTFUL,
        "several are the default: a, b",
        id="two defaults",
    ),
    # Claims that are there
    pytest.param(existing(), GOOD, "0 of 1 made", id="no claim yet"),
    pytest.param(existing(there()), DOUBTFUL, "taken over with their data: data", id="a former stack's"),
    pytest.param(existing(there(manager="pulumi-kubernetes-1a"), installed=True), GOOD, "1 of 1", id="this stack's"),
    pytest.param(existing(there(), installed=True), DOUBTFUL, "taken over", id="a stranger's beside ours"),
    pytest.param(
        existing(there(mode="ReadWriteOnce", storage_class="x")),
        BAD,
        "with ReadWriteOnce, not ReadWriteMany and the class x, not files",
        id="another shape",
    ),
    pytest.param(existing(claims=(claim(adopted=True),)), BAD, "storage.adopt names data", id="nothing to adopt"),
    pytest.param(existing(there("other"), there(), claims=(claim(adopted=True),)), GOOD, "1 of 1", id="adopted"),
    # Rights
    pytest.param(rights.rights(needs(), {rights.EVERYTHING: True}), GOOD, "all there are", id="administrator"),
    # Quotas, secrets, images
    pytest.param(admission.quota([], needs().amounts, installed=False), GOOD, "none", id="no quota"),
    pytest.param(
        admission.quota([quota({"pods": "6"})], needs().amounts, installed=False), GOOD, "1 hold", id="just enough"
    ),
    pytest.param(
        admission.quota([quota({"pods": "6"}, {"pods": "1"})], needs().amounts, installed=False),
        BAD,
        "team leaves 5 of pods, and the stack needs 6",
        id="used by others",
    ),
    pytest.param(
        admission.quota([quota({"pods": "6"}, {"pods": "6"})], needs().amounts, installed=True),
        GOOD,
        "1 hold",
        id="used by us",
    ),
    pytest.param(
        admission.quota([quota({"pods": "0"}, scopes=["BestEffort"])], needs().amounts, installed=True),
        GOOD,
        "none",
        id="a quota of other pods",
    ),
    pytest.param(
        admission.quota([quota({"pods": "1e3", "services": "1"})], needs().amounts, installed=False),
        GOOD,
        "1 hold",
        id="unknown numbers and things",
    ),
    pytest.param(admission.secret(SecretNeed("a", "x.y"), there=True), GOOD, "for x.y", id="secret"),
    pytest.param(admission.secret(SecretNeed("a", "x.y"), there=False), BAD, "x.y names it", id="no secret"),
    pytest.param(admission.images(needs(), []), SKIPPED, "only a node can tell", id="nobody pulled"),
    pytest.param(
        admission.images(needs(), [running("registry.example/agent:1", imageID="sha256:0")])[:1],
        GOOD,
        "a node has it",
        id="pulled",
    ),
    pytest.param(
        admission.images(needs(), [running("registry.example/agent:1", **PULL)])[:1],
        BAD,
        "ImagePullBackOff no such image",
        id="not pulled",
    ),
    # Refusals
    pytest.param(
        admission.refusal("pod", Forbidden(TARGET, 'violates PodSecurity "restricted:latest"')),
        BAD,
        "restricted:latest",
        id="Pod Security",
    ),
    pytest.param(
        admission.refusal("pod", Invalid(TARGET, "admission webhook x does not support dry run")),
        SKIPPED,
        "cannot be tried",
        id="a webhook without dry run",
    ),
    pytest.param(admission.refusal("pod", Forbidden(TARGET, "no")), BAD, "no", id="refused by somebody"),
]


@pytest.mark.parametrize(("findings", "verdict", "evidence"), JUDGED)
def test_a_judgement_has_verdict_evidence_and_a_remedy_where_one_is_needed(findings, verdict, evidence):
    first = findings[0] if isinstance(findings, list) else findings
    assert first.verdict is verdict
    assert evidence in first.evidence
    assert bool(first.remedy) is (verdict in {DOUBTFUL, BAD})


def test_the_newest_of_several_default_classes_counts():
    found = [storage_class("a", BLOCK, default=True, made="1"), storage_class("b", default=True, made="2")]
    findings = storage.classes(needs(claims=(claim(storage_class=None),)), found, [])
    assert [each.check for each in findings] == ["storage class", "storage class b"]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('violates PodSecurity "restricted:latest"', "enforce label"),
        ("exceeded quota: team", "quota raised"),
        ("maximum cpu usage per Container is 1", "LimitRange"),
        ("unable to validate against any security context constraint", "openshift.scc"),
        ('no PriorityClass with name "x" was found', "priorityClass"),
        ('pod rejected: RuntimeClass "x" not found', "runtimeClass"),
    ],
)
def test_a_refusal_has_the_remedy_of_who_refused(message, remedy):
    assert remedy in admission.refusal("pod", Forbidden(TARGET, message)).remedy


# Rights


def all_rights(stack: Needs, *without: rights.Right):
    return {right: right not in without for right in rights.asked(stack)}


def test_a_missing_right_is_told_with_its_verbs_together():
    stack = needs(kinds=(Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False),))
    missing = [right for right in rights.of_up(stack) if right.verb in {"create", "patch"}]
    assert {right.namespace for right in missing} == {""}
    (found,) = rights.rights(stack, all_rights(stack, *missing))
    assert found.verdict is BAD
    assert found.evidence == "you may not create, patch priorityclasses.scheduling.k8s.io"


def test_a_roll_out_is_watched_with_what_belongs_to_it():
    looked = {(right.verb, right.resource) for right in rights.of_up(needs()) if right.verb in {"list", "watch"}}
    assert looked == {(verb, each) for verb in ("list", "watch") for each in ("deployments", "replicasets", "pods")}


def test_nobody_gives_away_what_they_do_not_have_unless_they_may():
    stack = needs()
    lacking = rights.Right("list", "", "events", "team")
    assert lacking in rights.given_away(stack)
    escalate, bind = rights.instead(stack)
    assert rights.rights(stack, all_rights(stack, lacking))[0].verdict is GOOD
    (found,) = rights.rights(stack, all_rights(stack, lacking, escalate))
    assert "gives rights that you do not have: list events" in found.evidence
    assert rights.rights(stack, all_rights(stack, lacking, bind))[0].verdict is BAD


def test_a_constraint_is_given_by_who_may_use_it_or_bind_its_role():
    stack = needs(binds_constraint=True)
    use, bind = rights.constraint(stack)
    assert rights.rights(stack, all_rights(stack, use))[0].verdict is GOOD
    assert rights.rights(stack, all_rights(stack, bind))[0].verdict is GOOD
    (found,) = rights.rights(stack, all_rights(stack, use, bind))
    assert "gives restricted-v2, which you may not use yourself" in found.evidence
    assert rights.constraint(needs()) == []


# What is tried


def test_a_pod_is_tried_for_each_shape_without_what_guardrails_keep_for_the_controller():
    mount = ContainerConfig(additional_mounts=(AdditionalMount(claim="handbook"),))
    groups = (
        GroupSpec(folder="main", name="M"),
        GroupSpec(folder="plain", name="P"),
        GroupSpec(folder="team", name="T", container_config=mount),
    )
    config = needs().config.model_copy(
        update={"mount_allowlist": MountAllowlist(claims=(AllowedSource(name="handbook"),))}
    )
    found = admission.pods(needs(groups=groups, config=config))
    assert list(found) == ["agent of main", "agent of team", "controller"]
    assert "handbook" in str(found["agent of team"]["spec"]["volumes"])
    for pod in found.values():
        assert "labels" not in pod["metadata"]
        assert pod["spec"]["serviceAccountName"] == "default"


def test_priority_classes_that_are_not_made_yet_are_left_out_and_others_tried():
    def workload(name):
        return Workload(name, "x:1", Resources(), Scheduling(priority_class=name))

    stack = needs(workloads=(workload("agent"), workload("ours"), workload("theirs")), made_priorities=("ours",))
    found = admission.pods(stack)
    assert "priorityClassName" not in found["ours"]["spec"]
    assert found["theirs"]["spec"]["priorityClassName"] == "theirs"


def test_folders_of_nodes_are_tried_where_the_stack_uses_them():
    config = needs().config.model_copy(update={"pattern": Pattern.NODELOCAL})
    controller = Workload("controller", "x:1", Resources(), Scheduling(), node_folder="/srv")
    pod = admission.pods(needs(config=config, workloads=(needs().agents, controller)))["controller"]
    assert {"path": "/srv", "type": "Directory"} in [each.get("hostPath") for each in pod["spec"]["volumes"]]


def test_without_groups_an_agent_of_main_is_tried():
    assert "agent of main" in admission.pods(needs(groups=()))


def test_the_largest_missing_claim_of_each_kind_is_tried():
    claims = (
        claim("small", size="900Mi"),
        claim("large", size="1Gi"),
        claim("made", size="9Gi"),
        claim("taken", size="9Gi", adopted=True),
        claim("block", storage_class="block", mode="ReadWriteOnce"),
    )
    found = admission.claims(needs(claims=claims), {"made"})
    assert list(found) == ["claim large", "claim block"]
    assert found["claim large"]["spec"]["resources"]["requests"]["storage"] == "1Gi"


# Without the platform's package


def test_a_command_line_that_knows_no_stacks_says_where_one_does():
    with pytest.raises(CommandFailed, match="of a checkout"):
        prerequisites_stack.reader([])


def test_the_controllers_role_is_among_what_is_given_away():
    assert rights.Right("get", "", "configmaps", "team", names.GROUPS_CONFIG) in rights.given_away(needs())


def test_with_the_bridge_so_is_the_one_right_beyond_the_namespace():
    review = rights.Right("create", "authentication.k8s.io", "tokenreviews")
    assert review not in rights.given_away(needs())

    bridged = needs(config=needs().config.model_copy(update={"transport": Transport.BRIDGE}))
    assert review in rights.given_away(bridged)
    cluster = rights.Right("bind", "rbac.authorization.k8s.io", "clusterroles")
    (found,) = rights.rights(bridged, all_rights(bridged, review, cluster))
    assert "create tokenreviews.authentication.k8s.io" in found.evidence
    assert "escalate, bind roles" in found.remedy
    assert "escalate, bind clusterroles" in found.remedy
