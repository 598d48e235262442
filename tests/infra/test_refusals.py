"""Every mistake in a stack file is told in one sentence: field, value, remedy."""

# ruff: noqa: E501 (each sentence is what a person reads: one line)

from __future__ import annotations

import pytest

from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from tests.infra.recording import VARIABLES, settings


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """A home with a kubeconfig in it, which the settings ask for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kubeconfig").touch()


def read(stack="local", **values):
    return StackSettings.read(
        stack, {"settings": settings("local")} | values, VARIABLES | {"NANOCLAW_KUBECONFIG": "~/kubeconfig"}
    )


def changed(path, value):
    """The settings of the stack `local` with one field set, or removed when the value is None."""
    tree = settings("local")
    at = tree
    *above, last = path
    for key in above:
        at = at[key] if isinstance(key, int) else at.setdefault(key, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "told"),
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
            "nanoclaw:settings.runtime.maxConcurrentSessions is 0; input should be greater than or equal to 1",
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
def test_a_mistake_is_told_with_field_value_and_remedy(path, value, told):
    with pytest.raises(StackRefused) as refused:
        read(settings=changed(path, value))

    assert refused.value.problems == (told,)


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
    ("mount", "told"),
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
def test_a_mount_that_would_be_refused_is_told(mount, told):
    with pytest.raises(StackRefused) as refused:
        read(settings=with_mounts(mount))

    assert refused.value.problems == (MOUNT + told,)


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

    [told] = refused.value.problems
    assert told.startswith(
        "nanoclaw:settings.runtime.mountAllowlist.claims[0].name: 'nanoclaw-data' begins as the inst"
    )


@pytest.mark.parametrize(
    ("platform", "create", "told"),
    [
        ("kubernetes", True, "the namespace this stack makes enforces Pod Security 'restricted'"),
        ("openshift", False, "agents run under restricted-v2"),
    ],
)
def test_folders_of_nodes_are_not_opened_where_the_platform_forbids_them(platform, create, told):
    with pytest.raises(StackRefused, match=rf"hostPathsOnNodes is true, but {told}, which forbids folders of nodes"):
        read(platform=platform, settings=with_mounts(create=create, hostPathsOnNodes=True))


def test_the_pattern_of_a_docker_host_is_not_a_clusters():
    with pytest.raises(
        StackRefused,
        match=r"nanoclaw:settings.runtime: the pattern 'docker' runs on a Docker host, by `nanoclaw host`; write 'job' here",
    ):
        read(settings=changed(("runtime", "pattern"), "docker"))
