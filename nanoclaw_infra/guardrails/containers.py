"""Which containers an agent's pod has, what runs in each, and with what rights.

The agent itself runs its image's own entry point. Beside it is, where the stack says so, the container that carries its
files, and one that is root for a moment to give the volumes to their user. Not here: what they mount.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nanoclaw_infra.guardrails.admission import SPEC, Rule, each
from nanoclaw_infra.guardrails.expressions import listed, text
from nanoclaw_runtime.contract import bridge, names, ownership, wire
from nanoclaw_runtime.contract.config import ControllerConfig, Platform
from nanoclaw_runtime.contract.layout import agent_mounts

AGENT: Final = "agent"
_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
# The last one among the pod's own containers: who sees the processes beside it sees their files, a token among them.


@dataclass(frozen=True)
class Container:
    """One of an agent's pod."""

    name: str
    image: str
    setting: str
    """Where the stack says which image."""
    command: tuple[str, ...] = ()
    """The image's own entry point when it is empty."""
    capabilities: tuple[str, ...] = ()
    """It runs as root, with these and no others; as everybody else when it is empty."""
    started: tuple[str, ...] = ()
    """What the kubelet runs in it before it goes on to the next one."""
    stays: bool = False
    """Whether it runs beside the agent as long as that does."""


def before(config: ControllerConfig) -> tuple[Container, ...]:
    """The containers that start before the agent, in their order."""
    found = []
    if config.fix_permissions and config.platform is Platform.KUBERNETES:
        found.append(_owning(config))
    if config.bridged:
        found.append(
            Container(
                names.BRIDGE,
                config.bridge_image,
                "controller.image",
                bridge.COMMAND,
                started=bridge.STARTED,
                stays=True,
            )
        )
    return tuple(found)


def _owning(config: ControllerConfig) -> Container:
    mounts = agent_mounts(config.layout, names.MAIN_FOLDER, "any")
    written = [mount.path for mount in mounts if not mount.read_only and not mount.path.endswith(f"/{wire.INPUT_DIR}")]
    return Container(
        ownership.NAME,
        config.agent.image,
        "runtime.agent.image",
        tuple(ownership.command(written)),
        capabilities=ownership.CAPABILITIES,
    )


def containers(config: ControllerConfig) -> tuple[Container, ...]:
    """All of them, the agent first."""
    return (Container(AGENT, config.agent.image, "runtime.agent.image"), *before(config))


def what_runs(config: ControllerConfig) -> tuple[Rule, ...]:
    """Every container is one of ours, runs what the stack says, and has settings anybody may read."""
    known = containers(config)
    early = [one.name for one in before(config)]
    told = " and ".join(one.name for one in known)
    images = dict.fromkeys(f"{one.image} ({one.setting})" for one in known)
    names_of = f"{SPEC}.?initContainers.orValue([]).map(each, each.name)"
    return (
        Rule(
            f"{SPEC}.containers.map(each, each.name) == {listed([AGENT])} && "
            + (f"{names_of} == {listed(early)}" if early else f"{names_of}.size() == 0"),
            f"an agent's pod has the container{'s' * (len(known) > 1)} {told} and no other; keep "
            "whatever injects sidecars out of this namespace",
            found="'containers ' + variables.containers.map(each, each.name).join(', ')",
        ),
        Rule(
            each(f"each.?image.orValue('') == {_of_each({one.name: one.image for one in known})}"),
            f"agents run the image{'s' * (len(images) > 1)} {' and '.join(images)}; change it in nanoclaw:settings",
            found="'image ' + variables.containers.map(each, each.?image.orValue('')).join(', ')",
        ),
        Rule(
            each(
                f"each.?command.orValue([]).join(' ') == {_of_each({one.name: ' '.join(one.command) for one in known})}"
                f" && !has(each.args) && {_hooks(known)}"
            ),
            "agents run their image's own entry point; take command, args and lifecycle away",
        ),
        Rule(
            each(
                "!has(each.livenessProbe) && !has(each.startupProbe) && (!has(each.readinessProbe) || "
                f"each.readinessProbe.?exec.?command.orValue([''])[0] == {text('test')})"
            ),
            "nothing is run beside an agent but a look for a file; take its probes away",
        ),
        Rule(
            each("each.?envFrom.orValue([]).size() == 0 && each.?env.orValue([]).all(one, !has(one.valueFrom))"),
            "agents get no variables from Secrets, ConfigMaps or fields; secrets go over stdin, plain settings into "
            "nanoclaw:settings.runtime.agent.env",
        ),
        Rule(
            each("['cpu', 'memory'].all(one, one in each.?resources.?limits.orValue({}))"),
            "agents have limits of cpu and memory; set them in nanoclaw:settings.runtime.agent.resources",
        ),
    )


def isolation(config: ControllerConfig) -> tuple[Rule, ...]:
    """No more rights than Pod Security `restricted` leaves, whatever the namespace enforces."""
    context = "each.?securityContext"
    profiles = listed(("RuntimeDefault", "Localhost"))
    roots = [one for one in containers(config) if one.capabilities]
    may_be_root = f"each.name in {listed(one.name for one in roots)} || " if roots else ""
    added = f"{context}.?capabilities.?add.orValue([])"
    capabilities = f"{added}.size() == 0"
    for one in roots:
        mine = f"{added}.all(one, one in {listed(one.capabilities)})"
        capabilities = f"(each.name == {text(one.name)} ? {mine} : {capabilities})"
    return (
        Rule(
            " && ".join(f"!{SPEC}.?{name}.orValue(false)" for name in _SHARED)
            + f" && {each('each.?ports.orValue([]).all(port, port.?hostPort.orValue(0) == 0)')}",
            f"agents stay out of the node's network and others' processes; take {', '.join(_SHARED)} and hostPort away",
        ),
        Rule(
            each(
                f"!{context}.?privileged.orValue(false) && !{context}.?allowPrivilegeEscalation.orValue(true) && "
                f"{capabilities} && 'ALL' in {context}.?capabilities.?drop.orValue([])"
            ),
            "agents are never privileged; set allowPrivilegeEscalation to false, drop ALL capabilities and add none",
        ),
        Rule(
            f"{SPEC}.?securityContext.?runAsNonRoot.orValue(false) && "
            f"{SPEC}.?securityContext.?runAsUser.orValue(1) != 0 && "
            + each(f"{may_be_root}{context}.?runAsNonRoot.orValue(true) && {context}.?runAsUser.orValue(1) != 0"),
            "agents are never root; set runAsNonRoot to true and no runAsUser of 0",
        ),
        Rule(
            f"{SPEC}.?securityContext.?seccompProfile.?type.orValue('') in {profiles} && "
            f"{SPEC}.?securityContext.?sysctls.orValue([]).size() == 0 && "
            + each(
                f"{context}.?seccompProfile.?type.orValue('RuntimeDefault') in {profiles} && "
                f"{context}.?procMount.orValue('Default') == 'Default'"
            ),
            "agents keep the runtime's filter of system calls and its /proc; set seccompProfile to RuntimeDefault, and "
            "take procMount and sysctls away",
        ),
        Rule(
            f"{_confined(f'{SPEC}.?securityContext')} && {each(_confined(context))}",
            "agents keep the node's SELinux and AppArmor; take type, user and role of seLinuxOptions, and the "
            "appArmorProfile Unconfined away",
        ),
        Rule(
            each(f"{context}.?readOnlyRootFilesystem.orValue(false)"),
            "agents cannot change their image; set readOnlyRootFilesystem to true",
        ),
    )


def _hooks(known: Iterable[Container]) -> str:
    """Whether nothing is run in the container `each` behind its start and before its end, but what is ours."""
    condition = "!has(each.lifecycle)"
    for one in known:
        if one.started:
            begun = f"each.?lifecycle.?postStart.?exec.?command.orValue([]) == {listed(one.started)}"
            condition = f"(each.name == {text(one.name)} ? {begun} && !has(each.lifecycle.preStop) : {condition})"
    return condition


def _of_each(values: Mapping[str, str]) -> str:
    """The value for the container `each`, by its name."""
    return f"{{{_entries(values.items())}}}[?each.name].orValue('')"


def _entries(values: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{text(name)}: {text(value)}" for name, value in values)


def _confined(context: str) -> str:
    """Whether a securityContext leaves SELinux, but for a level, and AppArmor as the node has them."""
    selinux = [f"{context}.?seLinuxOptions.?{name}.orValue('') == ''" for name in ("type", "user", "role")]
    return " && ".join((*selinux, f"{context}.?appArmorProfile.?type.orValue('') != 'Unconfined'"))
