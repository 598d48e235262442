"""Every mistake in a stack file is told in one sentence: field, value, remedy."""

# ruff: noqa: E501 (each sentence is what a person reads: one line)

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_infra.settings.file import read_stack
from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import names
from tests.infra.recording import CHECKOUT, settings
from tests.infra.refused import changed, merged, read, told


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """A home in which nothing is, so that nothing of this machine is found by chance."""
    monkeypatch.setenv("HOME", str(tmp_path))


def refusal(*path, value, says, id):  # noqa: A002 (as pytest.param has it)
    return pytest.param(path, value, f"nanoclaw:settings.{says}", id=id)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        pytest.param(
            ("grups",), [], "nanoclaw:settings.grups is not a setting; did you mean 'groups'?", id="typo at the top"
        ),
        pytest.param(
            ("runtime", "agent", "imagePolicy"),
            "Always",
            "nanoclaw:settings.runtime.agent.imagePolicy is not a setting; did you mean 'imagePullPolicy'?",
            id="typo deep inside",
        ),
        pytest.param(
            ("controller", "image"),
            None,
            "nanoclaw:settings.controller.image is missing (reference of the runtime's image: the controller, and the model gateway); add it to the stack file",
            id="missing",
        ),
        pytest.param(
            ("controller", "image"),
            "registry.example/nanoclaw",
            "nanoclaw:settings.controller.image: 'registry.example/nanoclaw' needs a tag or a digest, exactly one of them; "
            "write ':1.2' or '@sha256:…'",
            id="image without tag",
        ),
        pytest.param(
            ("runtime", "agent", "image"),
            f"registry.example:5000/agent:1@sha256:{'0' * 64}",
            f"nanoclaw:settings.runtime: agent.image: 'registry.example:5000/agent:1@sha256:{'0' * 64}' needs a tag or a "
            "digest, exactly one of them; write ':1.2' or '@sha256:…'",
            id="image with both",
        ),
        pytest.param(
            ("namespace", "name"),
            "default",
            "nanoclaw:settings.namespace.name: 'default' belongs to the cluster; write a namespace of its own, like 'nanoclaw'",
            id="namespace of the cluster",
        ),
        pytest.param(
            ("namespace", "name"),
            "Team_Chat",
            "nanoclaw:settings.namespace.name: 'Team_Chat' is no namespace; write 1 to 63 lower-case letters, digits and '-'",
            id="no namespace",
        ),
        pytest.param(
            ("storage", "sizes"),
            {"store": "2GB"},
            "nanoclaw:settings.storage.sizes.store: '2GB' is no quantity; write one like '500m' (CPU) or '512Mi' (bytes)",
            id="no quantity",
        ),
        pytest.param(
            ("storage", "accessMode"),
            "ReadOnlyMany",
            "nanoclaw:settings.storage.accessMode is 'ReadOnlyMany'; write 'ReadWriteMany', 'ReadWriteOnce' or 'ReadWriteOncePod'",
            id="access mode",
        ),
        pytest.param(
            ("controller", "resources"),
            {"memoryRequest": "2Gi"},
            "nanoclaw:settings.controller.resources: the memory request '2Gi' is above the limit '512Mi'; raise the limit "
            "or lower the request",
            id="request above limit",
        ),
        pytest.param(
            ("runtime", "agent", "env"),
            {"ANTHROPIC_API_KEY": "sk-1"},
            "nanoclaw:settings.runtime.agent.env: 'ANTHROPIC_API_KEY' is a secret and would be readable in the pod; put it "
            "into the credentials",
            id="secret in the environment",
        ),
        pytest.param(
            ("runtime", "agent", "env"),
            {"TELEGRAM_BOT_TOKEN": "1:x"},
            "nanoclaw:settings.runtime.agent.env: 'TELEGRAM_BOT_TOKEN' is a secret and would be readable in the pod; put it "
            "into the credentials",
            id="token of a channel in the environment",
        ),
        pytest.param(
            ("runtime", "maxConcurrentSessions"),
            0,
            "nanoclaw:settings.runtime.maxConcurrentSessions is 0; write 1 or more",
            id="no sessions",
        ),
        pytest.param(
            ("runtime", "platform"),
            "openshift",
            "nanoclaw:settings.runtime.platform has a key of its own; write nanoclaw:platform",
            id="platform in the wrong place",
        ),
        pytest.param(
            ("runtime", "registrationStorage"),
            {"storageClass": "fast"},
            "nanoclaw:settings.runtime.registrationStorage is made from nanoclaw:settings.storage; remove it",
            id="storage of registered groups in the wrong place",
        ),
        pytest.param(
            ("groups", 1, "folder"),
            "../family",
            "nanoclaw:settings.groups[1].folder: '../family': a folder has 1 to 64 letters, digits, '-' or '_' and starts "
            "with a letter or digit",
            id="folder",
        ),
        pytest.param(
            ("groups", 1, "folder"),
            "main",
            "nanoclaw:settings.groups: the folder 'main' is used twice; each group needs its own",
            id="folder twice",
        ),
        pytest.param(
            ("cluster", "kubeconfig"),
            "~/.kube/elsewhere",
            "nanoclaw:settings.cluster.kubeconfig: there is no file '~/.kube/elsewhere'; write the path of a kubeconfig (for "
            "the embedded cluster: `make up`)",
            id="no kubeconfig",
        ),
        pytest.param(
            ("cluster", "kubeconfig"),
            "$NOWHERE/config",
            "nanoclaw:settings.cluster.kubeconfig is '$NOWHERE/config', and NOWHERE is not set; set it to the path of a "
            "kubeconfig (`make up` does that)",
            id="unset variable",
        ),
    ],
)
def test_a_mistake_is_told_with_field_value_and_remedy(path, value, sentence):
    assert told(settings=changed(path, value)) == (sentence,)


LONG = "x" * 500

KINDS = [
    refusal("runtime", "two words", value=1, says="runtime['two words'] is not a setting; there are agent, assistantName, channels, closeGrace, deadline, fixPermissions, idleProtection, idleTimeout, keepFinished, maxConcurrentSessions, mountAllowlist, nodeRoot, nodelocal, parking, pattern, placement, registration, sessionTimeout, startTimeout, switchDeadline, timezone, transport", id="a field of two words"),
    refusal("runtime", "idleTimeout", value="soon", says="runtime.idleTimeout is 'soon'; write a number", id="a word for a number"),
    refusal("runtime", "idleTimeout", value=0, says="runtime.idleTimeout is 0; write a number above 0", id="not above"),
    refusal("runtime", "deadline", value=60, says="runtime.deadline is 60; write 3600 or more", id="too little"),
    refusal("runtime", "startTimeout", value=float("inf"), says="runtime.startTimeout is inf; write a number", id="for ever"),
    refusal("runtime", "maxConcurrentSessions", value=2.5, says="runtime.maxConcurrentSessions is 2.5; write a whole number", id="half a session"),
    refusal("runtime", "maxConcurrentSessions", value=20_000, says="runtime.maxConcurrentSessions is 20000; write 10000 or less", id="too many"),
    refusal("runtime", "registration", value="perhaps", says="runtime.registration is 'perhaps'; write true or false", id="neither true nor false"),
    refusal("runtime", "assistantName", value="", says="runtime.assistantName is ''; write some text", id="no text"),
    refusal("runtime", "assistantName", value="A" * 61, says=f"runtime.assistantName is '{'A' * 61}'; write at most 60 characters", id="long text"),
    refusal("runtime", "assistantName", value=7, says="runtime.assistantName is 7; write text, in quotes where it looks like a number", id="a number for text"),
    refusal("runtime", "agent", "imagePullPolicy", value="Maybe", says="runtime.agent.imagePullPolicy is 'Maybe'; write 'Always', 'IfNotPresent' or 'Never'", id="no such word"),
    refusal("runtime", "agent", "env", value=[], says="runtime.agent.env is []; write a map of settings", id="a list for a map"),
    refusal("runtime", "agent", value="agent:1", says="runtime.agent is 'agent:1'; write a map of settings", id="text for a map"),
    refusal("runtime", "timezone", value="Mars/Olympus", says="runtime.timezone: 'Mars/Olympus' is no IANA time zone; write one like 'Europe/Berlin' or 'UTC'", id="no time zone"),
    refusal("runtime", "nodeRoot", value="data", says="runtime.nodeRoot is 'data'; write text that fits ^/[^\\s]*[^\\s/]$", id="no folder"),
    refusal("groups", value={"folder": "main"}, says="groups is {'folder': 'main'}; write a list", id="a map for a list"),
    refusal("groups", value=LONG, says=f"groups is {repr(LONG)[:120]}…; write a list", id="a long value"),
    refusal("groups", 1, "folder", value="Global", says="groups[1].folder: 'Global': the folder 'global' is reserved", id="a reserved folder"),
    refusal("storage", "sizes", value={"files": "1Gi"}, says="storage.sizes has the key 'files'; write 'group', 'ipc', 'sessions', 'folder', 'project', 'global', 'store', 'usage' or 'data'", id="no purpose"),
    refusal("storage", "sizes", value={"store": "٣Gi"}, says="storage.sizes.store: '٣Gi' is no quantity; write one like '500m' (CPU) or '512Mi' (bytes)", id="digits of another script"),
    refusal("storage", "groupSizes", value={"../x": {}}, says="storage.groupSizes has the key '../x'; '../x': a folder has 1 to 64 letters, digits, '-' or '_' and starts with a letter or digit", id="a key that is no folder"),
    refusal("storage", "storageClass", value="Fast", says="storage.storageClass: 'Fast' is no name of an object; write 1 to 253 lower-case letters, digits, '-' and '.'", id="no object's name"),
    refusal("storage", "makeClass", value={"name": "own", "provisioner": "nfs.csi.k8s.io"}, says="storage: the StorageClass 'own' is made and not used; name it in storageClass or databaseStorageClass", id="a class for nobody"),
    refusal("namespace", "quota", value={"Pods": "5"}, says="namespace.quota: 'Pods' is no resource of a quota; write one like 'pods' or 'requests.memory'", id="no resource"),
    refusal("namespace", "quota", value={"pods": "many"}, says="namespace.quota: 'many' is no quantity; write one like '500m' (CPU) or '512Mi' (bytes)", id="no amount"),
    refusal("namespace", "containerLimits", value={"maxCpu": "fast"}, says="namespace.containerLimits.maxCpu: 'fast' is no quantity; write one like '500m' (CPU) or '512Mi' (bytes)", id="no limit"),
    refusal("cluster", "kubeconfig", value="~nobody-of-that-name/config", says="cluster.kubeconfig: there is no file '~nobody-of-that-name/config'; write the path of a kubeconfig (for the embedded cluster: `make up`)", id="the home of nobody"),
    refusal("allowDataLoss", value=["nanoclaw-store"], says="allowDataLoss[0]: 'nanoclaw-store' names no object that holds data; write 'PersistentVolumeClaim/NAME' or 'Namespace/NAME'", id="data of no kind"),
    refusal("allowDataLoss", value="Namespace/nanoclaw", says="allowDataLoss is 'Namespace/nanoclaw'; write a list", id="data not as a list"),
    refusal("network", "agents", value=[{}], says="network.agents[0]: a peer is a `cidr`, or `namespace` and `pods`; write one of the two kinds", id="a peer of no kind"),
    refusal("network", "agents", value=[{"cidr": "10.0.0.0/8", "pods": {}}], says="network.agents[0]: a peer is a `cidr`, or `namespace` and `pods`; write one of the two kinds", id="a peer of both kinds"),
    refusal("network", "agents", value=[{"pods": {}, "except": ["10.0.0.0/8"]}], says="network.agents[0]: `except` takes away from a `cidr`; name that too, or remove it", id="an exception of nothing"),
    refusal("network", "agents", value=[{"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}], says="network.agents[0]: `except` has '192.168.0.0/16', which is no part of '10.0.0.0/8'; remove it", id="an exception from elsewhere"),
    refusal("network", "clients", value=[{"cidr": "10.0.0.7/8"}], says="network.clients[0].cidr: '10.0.0.7/8' is no range of addresses (10.0.0.7/8 has host bits set); write one like '10.0.0.0/24'", id="no range"),
    refusal("network", "controller", value=[{"cidr": "10.0.0.0/8", "ports": [0]}], says="network.controller[0].ports[0] is 0; write 1 or more", id="no port"),
    refusal("network", "controller", value=[{"cidr": "10.0.0.0/8", "ports": []}], says="network.controller[0].ports is []; write at least 1 of them", id="no ports"),
    refusal("network", "apiServer", "cidrs", value=["kubernetes.default"], says="network.apiServer.cidrs[0]: 'kubernetes.default' is no range of addresses ('kubernetes.default' does not appear to be an IPv4 or IPv6 network); write one like '10.0.0.0/24'", id="a name for an address"),
    refusal("controller", "scheduling", value={"tolerations": [{"operator": "Equal"}]}, says="controller.scheduling.tolerations[0]: a toleration without a key is for every taint; give it a key, or the operator 'Exists'", id="a toleration of everything"),
    refusal("controller", "scheduling", value={"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, says="controller.scheduling.tolerations[0]: the operator 'Exists' takes no value; remove 'b' or write 'Equal'", id="a value nobody compares"),
    refusal("controller", "scheduling", value={"tolerations": [{"key": "a", "tolerationSeconds": 5}]}, says="controller.scheduling.tolerations[0]: only the effect 'NoExecute' has tolerationSeconds; remove them", id="seconds of nothing"),
    refusal("controller", "image", value="Registry/Image:1", says="controller.image: 'Registry/Image:1' is no image reference; write one like 'registry.example/nanoclaw/agent:1.2'", id="no image"),
    refusal("gateway", "serves", value={"prices": {"claude": {"input": 3}}}, says="gateway.serves.prices.claude.output is missing (tokens answered); add it to the stack file", id="half a price"),
    refusal("guardrails", value={"failureAction": "Ignore"}, says="guardrails.failureAction is 'Ignore'; write 'Deny', 'Warn' or 'Audit'", id="no action"),
    refusal("monitoring", value={"interval": 1}, says="monitoring.interval is 1; write 5 or more", id="too often"),
    refusal("priorities", value={"agents": 2_000_000_000}, says="priorities.agents is 2000000000; write 1000000000 or less", id="a priority of the system's"),
    refusal("credentials", value={"external": {"store": "vault", "data": {}}}, says="credentials.external.data is {}; write at least 1 of them", id="a store of nothing"),
    refusal("credentials", value={"external": {"store": "vault", "refresh": "hourly", "data": {"A": {"key": "a"}}}}, says="credentials.external.refresh is 'hourly'; write text that fits ^\\d+[smh]$", id="no time"),
    refusal("runtime", "closedNetwork", value=True, says="runtime.closedNetwork is made from nanoclaw:settings.network; remove it", id="closed by hand"),
    refusal("protectData", value=True, says="protectData has a key of its own; write nanoclaw:protectData", id="protection in the wrong place"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "sentence"), KINDS)
def test_every_kind_of_mistake_has_a_sentence_of_its_own(path, value, sentence):
    assert told(settings=changed(path, value)) == (sentence,)


def test_two_folders_that_fold_to_one_name_are_told():
    one, other = (
        "A-Family-With-A-Long-Name-868c5",
        "A-Family-With-A-Long-Name-13d04e",
    )  # the first two of their kind whose hashes begin alike
    assert names.slug(one) == names.slug(other)
    groups = [{"folder": folder, "name": "Family"} for folder in (one, other)]

    assert told(settings=settings("local") | {"groups": groups}) == (
        f"nanoclaw:settings.groups: the folders '{one}' and '{other}' fold to one name; rename one",
    )


def test_every_mistake_is_told_at_once():
    wrong = changed(("namespace", "name"), "kube-system")
    wrong["storage"]["sizes"]["ipc"] = "0"

    with pytest.raises(StackRefused) as refused:
        read(settings=wrong)

    assert len(refused.value.problems) == 2
    assert str(refused.value).startswith("stack 'local' has 2 problems:\n  - ")


def test_an_unknown_platform_is_told_by_the_key_of_the_stack_file():
    with pytest.raises(StackRefused, match=r"nanoclaw:platform is 'nomad'; write 'kubernetes' or 'openshift'"):
        read(platform="nomad")


def test_only_the_local_stack_takes_images_from_variables():
    with pytest.raises(StackRefused, match="only the stack 'local' takes its images from variables"):
        read(stack="production")


def test_settings_that_are_no_map_are_refused():
    with pytest.raises(StackRefused, match="nanoclaw:settings is \\[\\]; write a map of settings"):
        read(settings=[])


def test_the_backstop_has_to_be_behind_the_silence_limit():
    wrong = changed(("runtime", "idleTimeout"), 90_000)

    with pytest.raises(StackRefused, match=r"runtime.deadline is 86400 s, not above the silence limit of 90030 s"):
        read(settings=wrong)


ALLOWLIST = {
    "allowedRoots": [{"path": "/srv/docs"}],
    "claims": [{"name": "library"}],
    "configMaps": [{"name": "prompts"}],
}
MOUNT = "nanoclaw:settings.groups[1].containerConfig.additionalMounts[0]: "


def with_mounts(*mounts, allowlist=ALLOWLIST, create=True, **changes):
    """The settings of the stack `local` where the second group has additional mounts."""
    tree = changed(("groups", 1, "containerConfig"), {"additionalMounts": list(mounts)})
    tree["runtime"]["mountAllowlist"] = allowlist and allowlist | changes
    tree["namespace"] = {"create": create}
    return tree


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        pytest.param(
            {"claim": "payroll"},
            "the claim 'payroll' is not allowed; add it to mountAllowlist.claims",
            id="claim nobody allowed",
        ),
        pytest.param(
            {"configMap": "library"},
            "the ConfigMap 'library' is not allowed; add it to mountAllowlist.configMaps",
            id="ConfigMap nobody allowed",
        ),
        pytest.param(
            {"claim": "library", "containerPath": "/etc"},
            "containerPath '/etc' is absolute; write a path below /workspace/extra, like 'notes'",
            id="absolute place",
        ),
        pytest.param(
            {"claim": "library", "subPath": "keys/.ssh"},
            "subPath 'keys/.ssh' contains '.ssh', which is blocked; mount another folder",
            id="blocked",
        ),
        pytest.param(
            {"hostPath": "/srv/docs"},
            "hostPath '/srv/docs' would be a folder of whichever node the agent runs on; mount a claim, or set "
            "mountAllowlist.hostPathsOnNodes",
            id="folder of a node",
        ),
    ],
)
def test_a_mount_that_would_be_refused_is_told(mount, sentence):
    assert told(settings=with_mounts(mount)) == (MOUNT + sentence,)


def test_every_refused_mount_is_told():
    with pytest.raises(StackRefused) as refused:
        read(settings=with_mounts({"claim": "a"}, {"claim": "library"}, {"claim": "library"}, {"hostPath": "/x"}))

    assert [problem.partition(": ")[0][-2:-1] for problem in refused.value.problems] == ["0", "2", "3"]


def test_mounts_without_an_allowlist_are_told():
    with pytest.raises(StackRefused, match="there is no mount allowlist; name what may be mounted in"):
        read(settings=with_mounts({"claim": "library"}, allowlist=None))


def test_mounts_that_are_allowed_pass():
    read(settings=with_mounts({"claim": "library", "subPath": "2026"}, {"configMap": "prompts"}))
    elsewhere = with_mounts({"hostPath": "/srv/docs/a"}, create=False, hostPathsOnNodes=True)
    read(settings=elsewhere)


def test_a_mount_with_two_sources_is_told():
    with pytest.raises(StackRefused, match="exactly one of hostPath, claim and configMap; it has claim and configMap"):
        read(settings=with_mounts({"claim": "library", "configMap": "prompts"}))


def test_an_allowlist_cannot_name_the_installations_own_claims():
    with pytest.raises(StackRefused) as refused:
        read(settings=with_mounts(claims=[{"name": "nanoclaw-data"}]))

    [sentence] = refused.value.problems
    assert sentence.startswith(
        "nanoclaw:settings.runtime.mountAllowlist.claims[0].name: 'nanoclaw-data' begins as the inst"
    )


@pytest.mark.parametrize(
    ("platform", "create", "reason"),
    [
        ("kubernetes", True, "the namespace this stack makes enforces Pod Security 'restricted'"),
        ("openshift", False, "agents run under restricted-v2"),
    ],
)
def test_folders_of_nodes_are_not_opened_where_the_platform_forbids_them(platform, create, reason):
    with pytest.raises(StackRefused, match=rf"hostPathsOnNodes is true, but {reason}, which forbids folders of nodes"):
        read(platform=platform, settings=with_mounts(create=create, hostPathsOnNodes=True))


def test_the_pattern_of_a_docker_host_is_not_a_clusters():
    with pytest.raises(
        StackRefused,
        match=r"nanoclaw:settings.runtime: the pattern 'docker' runs on a Docker host, by `nanoclaw host`; write 'job' here",
    ):
        read(settings=changed(("runtime", "pattern"), "docker"))


unhurried = hypothesis.settings(deadline=None)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(
        ["~nobody-of-that-name/x", "x" * 5000, "\0", "$HOME", "${X", "1Gi", "0", "10.0.0.0/8", "main", "job"]
    ),
)
KEYS = st.one_of(
    st.text(max_size=10), st.integers(), st.sampled_from(["runtime", "groups", "storage", "name", "[key]"])
)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=10
)
"""Whatever a YAML file may hold."""


def places(tree, path=()):
    """The path of everything in `tree`, the whole of it included."""
    yield path
    if isinstance(tree, dict | list):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(inner, (*path, key))


WHOLE = merged(settings("production"), {"cluster": {"kubeconfig": __file__}, "storage": {"keep": ["old"]}})
PLACES = sorted(places(WHOLE), key=str)


def put(tree, path, value):
    """`tree` with `value` at `path`."""
    if not path:
        return value
    first, *rest = path
    made = list(tree) if isinstance(tree, list) else dict(tree)
    made[first] = put(tree[first], rest, value)
    return made


def taken_or_told(**values):
    """Read the stack; whatever is wrong is told in sentences that name a key of the file."""
    problems = ["nanoclaw:settings are taken"]
    try:
        StackSettings.read("production", values, {})
    except StackRefused as refused:
        problems = refused.problems
    assert problems
    assert [each for each in problems if not re.match(r"nanoclaw:\w+[^ ]*( |: )\S", each, re.DOTALL)] == []


@unhurried
@given(where=st.sampled_from(PLACES), junk=JUNK)
def test_junk_anywhere_in_the_settings_is_taken_or_told(where, junk):
    taken_or_told(settings=put(WHOLE, where, junk))


@unhurried
@given(
    where=st.sampled_from(
        [path for path in PLACES if isinstance(functools.reduce(lambda at, key: at[key], path, WHOLE), dict)]
    ),
    key=KEYS,
    junk=JUNK,
)
def test_a_field_nobody_knows_is_taken_or_told(where, key, junk):
    holder = functools.reduce(lambda at, step: at[step], where, WHOLE)

    taken_or_told(settings=put(WHOLE, where, holder | {key: junk}))


@unhurried
@given(junk=st.dictionaries(st.sampled_from(["platform", "layout", "protectData", "settings"]), JUNK))
def test_junk_in_the_keys_of_a_stack_file_is_taken_or_told(junk):
    taken_or_told(**({"settings": WHOLE} | junk))


@unhurried
@given(
    document=st.one_of(
        JUNK, st.fixed_dictionaries({"config": st.dictionaries(KEYS | st.just("nanoclaw:settings"), JUNK)})
    )
)
def test_a_file_of_junk_is_taken_or_told(document):
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "stacks").mkdir()
        (project / "Pulumi.yaml").write_text((CHECKOUT / "Pulumi.yaml").read_text())
        (project / "stacks" / "Pulumi.junk.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(StackRefused):
            read_stack("junk", project, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("config: [", "cannot be read (while parsing", id="no YAML"),
        pytest.param("", "is no map; write `config:` with the settings below it", id="nothing"),
        pytest.param("config: []", "is []; write a map", id="no map"),
        pytest.param("config: {1: x}", "nanoclaw:settings.cluster is missing", id="a number for a key"),
    ],
)
def test_a_file_that_is_no_stack_is_told(tmp_path, text, sentence):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("config: {}")
    (tmp_path / "stacks" / "Pulumi.junk.yaml").write_text(text)

    with pytest.raises(StackRefused) as refused:
        read_stack("junk", tmp_path, {})
    assert sentence in refused.value.problems[0]


def test_an_unknown_stack_is_told_with_those_there_are():
    with pytest.raises(
        StackRefused, match=r"there is no file .*Pulumi\.prod\.yaml; there are the stacks bridge, dev, .*production"
    ):
        read_stack("prod", CHECKOUT, {})
