"""The controller's settings and the groups, as the stack hands them over.

The Pulumi program validates and writes them, the runtime reads the same models: a mistake stops
`pulumi preview`, never a pod. Times are seconds.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from nanoclaw_runtime.contract import names, quantities, wire
from nanoclaw_runtime.contract.claims import Layout, Purpose
from nanoclaw_runtime.contract.quantities import Quantity

CONFIG_DIR: Final = "/etc/nanoclaw/config"
"""Settings ConfigMap in the controller's pod."""
CREDENTIALS_DIR: Final = "/etc/nanoclaw/credentials"
"""Credentials Secret in the controller's pod, one file a key."""
API_TOKEN_DIR: Final = "/etc/nanoclaw/api-token"  # noqa: S105

ENV_CONFIG_DIR: Final = "NANOCLAW_CONFIG_DIR"
ENV_CREDENTIALS_DIR: Final = "NANOCLAW_CREDENTIALS_DIR"
ENV_API_TOKEN_DIR: Final = "NANOCLAW_API_TOKEN_DIR"  # noqa: S105
ENV_TREE: Final = "NANOCLAW_TREE"
ENV_NAMESPACE: Final = "NANOCLAW_NAMESPACE"
ENV_NODE: Final = "NANOCLAW_NODE"
"""With the pattern `nodelocal`: the node a member serves."""
ENV_POD_IP: Final = "NANOCLAW_POD_IP"
"""With the pattern `nodelocal`: where the other members find this one."""
ENV_DATABASE_URL: Final = "NANOCLAW_DATABASE_URL"
"""Optional; SQLite on the store claim when it is not set."""


RESTRICTED_SCC: Final = "restricted-v2"
"""OpenShift's SecurityContextConstraints that every account may use."""


class Platform(StrEnum):
    """Who chooses uid and gid of the pods: we (1000) on Kubernetes, the namespace's range on OpenShift."""

    KUBERNETES = "kubernetes"
    """uid, gid and fsGroup are 1000."""
    OPENSHIFT = "openshift"
    """None of them is set; `restricted-v2` fills them in."""


class Pattern(StrEnum):
    """Where agents run."""

    JOB = "job"
    """One Job a session, on the cluster."""
    STATEFULSET = "statefulset"
    """One StatefulSet a group, scaled to zero when idle, its pod parked before the message comes."""
    NODELOCAL = "nodelocal"
    """A controller a node, and each group's Jobs on the node that has its folders."""
    DOCKER = "docker"
    """One container a session, on a Docker host, from the same tree: the way back, and the way in."""

    @property
    def has_claims(self) -> bool:
        """Whether groups keep their data in PersistentVolumeClaims, not in folders of a host."""
        return self in {Pattern.JOB, Pattern.STATEFULSET}


class Transport(StrEnum):
    """How follow-ups, requests and snapshots pass between the controller and an agent on a cluster."""

    VOLUME = "volume"
    """As files on volumes that both mount: ReadWriteMany, or all pods on the controller's node."""
    BRIDGE = "bridge"
    """As files in the agent's pod, kept equal with the controller's by a container beside the agent; the controller
    mounts nothing of any group, so claims may be ReadWriteOnce or ReadWriteOncePod on any node."""


class Warm(StrEnum):
    """Whether a group's agent is started before its message."""

    AUTO = "auto"
    """While the group is used, or a task of it is near, and the budget of `parking` has room."""
    ALWAYS = "always"
    """Before all others, whenever the budget has room."""
    NEVER = "never"


class Placement(StrEnum):
    """Where agents' pods may run."""

    ANYWHERE = "anywhere"
    """Wherever the scheduler finds room, spread over the nodes."""
    CONTROLLER_NODE = "controller-node"
    """On the node the controller runs on: what a ReadWriteOnce volume asks of those that share it."""


class Priority(StrEnum):
    """Who goes first when groups wait for a place: a head start in the queue, never a right to starve others."""

    HIGH = "high"
    """As if it had waited five minutes longer."""
    NORMAL = "normal"
    LOW = "low"
    """As if it had waited five minutes less."""


class ContractModel(BaseModel):
    """A part of what the stack tells a process of ours."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def _valid_folder(folder: str) -> str:
    if problem := names.folder_problem(folder):
        raise ValueError(f"{folder!r}: {problem}")
    return folder


def _valid_timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no IANA time zone; write one like 'Europe/Berlin' or 'UTC'")
    return name


def _valid_env(env: dict[str, str]) -> dict[str, str]:
    if secret := sorted(env.keys() & {*wire.SECRET_KEYS, *wire.CHANNEL_SECRET_KEYS}):
        raise ValueError(f"{secret[0]!r} is a secret and would be readable in the pod; put it into the credentials")
    return env


def _valid_object_name(name: str) -> str:
    if not re.fullmatch(names.OBJECT_PATTERN, name):
        raise ValueError(f"{name!r} is no name of an object; write 1 to 253 lower-case letters, digits, '-' and '.'")
    return name


ObjectName = Annotated[
    str, AfterValidator(_valid_object_name), Field(json_schema_extra={"pattern": names.OBJECT_PATTERN})
]
"""Name of a Kubernetes object, as DNS-1123 subdomains are written."""
Folder = Annotated[str, AfterValidator(_valid_folder), Field(json_schema_extra={"pattern": names.FOLDER_PATTERN})]
TimeZone = Annotated[str, AfterValidator(_valid_timezone)]


class Resources(ContractModel):
    """Requests and limits of a container, as Kubernetes quantities; the defaults suit an agent."""

    cpu_request: Quantity = "250m"
    """What the scheduler keeps free for it; as `500m`."""
    memory_request: Quantity = "256Mi"
    """What the scheduler keeps free for it; as `512Mi`."""
    cpu_limit: Quantity = "1"
    """Above it the container is slowed down. An agent with less than one CPU compiles for 19 s at its start, not 5."""
    memory_limit: Quantity = "1Gi"
    """Above it the container is killed."""

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        for resource, request, limit in (
            ("cpu", self.cpu_request, self.cpu_limit),
            ("memory", self.memory_request, self.memory_limit),
        ):
            if quantities.parse(request) > quantities.parse(limit):
                raise ValueError(
                    f"the {resource} request {request!r} is above the limit {limit!r}; raise the limit or lower the "
                    "request"
                )
        return self


class AdditionalMount(ContractModel):
    """One more folder of a group's agents, below /workspace/extra; exactly one source."""

    host_path: str | None = Field(default=None, min_length=1, max_length=4096)
    """A folder of the node or of the Docker host, `~` expanded; must lie below an allowed root."""
    claim: str | None = Field(default=None, min_length=1, max_length=253)
    """A PersistentVolumeClaim of the namespace."""
    config_map: str | None = Field(default=None, min_length=1, max_length=253)
    """A ConfigMap of the namespace; always read-only."""
    container_path: str = Field(default="", max_length=255)
    """Path below /workspace/extra; the last part of the source's name when it is left out."""
    sub_path: str | None = Field(default=None, max_length=1024)
    """Folder of the claim."""
    readonly: bool = True
    """Whether agents may only read it; only what the allowlist opens can be written."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("host_path", "claim", "config_map") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(to_camel(name) for name in given)}" if given else "it has none"
            raise ValueError(f"a mount needs exactly one of hostPath, claim and configMap; {found}")
        if self.sub_path is not None and self.claim is None:
            raise ValueError("only a claim has a subPath; name the folder itself in hostPath, or remove it")
        return self


class ContainerConfig(ContractModel):
    """What a group's agents have beyond the others; NanoClaw's `containerConfig`."""

    additional_mounts: tuple[AdditionalMount, ...] = Field(default=(), max_length=64)
    """Folders, claims and ConfigMaps its agents see below /workspace/extra; `mountAllowlist` has to allow each."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds; the group's own `sessionTimeout`."""


class GroupSpec(ContractModel):
    """A chat group with an agent of its own."""

    folder: Folder
    """NanoClaw's folder of the group, and part of the names of its claims and Jobs; `main` is the owner's own."""
    name: str = Field(min_length=1, max_length=200)
    """The group's name, for people."""
    jid: str = Field(default="", max_length=255)
    """The chat's address at its network; `http:<folder>` when it is left out."""
    requires_trigger: bool = True
    """Whether only messages that begin with `@<assistant name>` are answered; main answers everything."""
    priority: Priority = Priority.NORMAL
    """Who goes first when groups wait for a place."""
    container_config: ContainerConfig = ContainerConfig()
    """What its agents have beyond the others."""
    pattern: Literal[Pattern.JOB, Pattern.STATEFULSET] | None = None
    """Where this group's agents run, when not as the stack says; a change takes effect with the next session."""
    warm: Warm = Warm.AUTO
    """Whether its agent is started before its message."""
    ephemeral: bool = False
    """With the pattern `nodelocal`: whether the group may begin anew, empty, elsewhere when its node is gone."""

    @model_validator(mode="after")
    def _default_jid(self) -> Self:
        if not self.jid:
            object.__setattr__(self, "jid", f"http:{self.folder}")
        return self

    @property
    def is_main(self) -> bool:
        return self.folder == names.MAIN_FOLDER


class Toleration(ContractModel):
    """A taint of nodes that a pod puts up with, as Kubernetes writes it."""

    key: str | None = Field(default=None, min_length=1, max_length=317)
    """Every taint when it is left out."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """`Exists` takes the key with any value."""
    value: str | None = None
    """The taint's value, for `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Every effect when it is left out."""
    toleration_seconds: int | None = Field(default=None, ge=0)
    """Of NoExecute: how long the pod stays once the taint is there."""

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError(f"the operator 'Exists' takes no value; remove {self.value!r} or write 'Equal'")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key is for every taint; give it a key, or the operator 'Exists'")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("only the effect 'NoExecute' has tolerationSeconds; remove them")
        return self


class Scheduling(ContractModel):
    """Which nodes may run a pod, and with what; as Kubernetes names these things."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=64)
    """Taints of nodes that the pods put up with."""
    runtime_class: ObjectName | None = None
    """RuntimeClass of the pods, such as one of gVisor or Kata Containers."""
    priority_class: ObjectName | None = None
    """PriorityClass of the pods; the stack's own when it makes some."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the namespace with which images are pulled."""


class AgentSettings(ContractModel):
    """The agents' image and what each of its sessions may use."""

    image: str = Field(min_length=1)
    """Reference of NanoClaw's agent image, with a tag or a digest."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node asks the registry again."""
    resources: Resources = Resources()
    """Of each session."""
    scheduling: Scheduling = Scheduling()
    """Nodes, tolerations, runtime class, priority and pull secrets of the pods."""
    env: Annotated[dict[str, str], AfterValidator(_valid_env)] = Field(default_factory=dict)
    """Plain settings for every agent container. Secrets do not belong here: they go over stdin."""


class AllowedSource(ContractModel):
    """A claim or ConfigMap that groups may mount; never one of the installation itself."""

    name: str = Field(min_length=1, max_length=253)
    """Its name in the namespace."""
    allow_read_write: bool = False
    """Whether mounts of it may be written to; never for a ConfigMap."""

    @field_validator("name")
    @classmethod
    def _not_ours(cls, name: str) -> str:
        if name.startswith(names.OWN_PREFIX):
            raise ValueError(
                f"{name!r} begins as the installation's own objects do, which agents never mount; choose another name"
            )
        return name


class AllowedRoot(ContractModel):
    """A folder of the host below which groups may mount."""

    path: str = Field(min_length=1, max_length=4096)
    """The folder; `~` is expanded on a Docker host."""
    allow_read_write: bool = False
    """Whether mounts below it may be written to."""
    description: str = ""
    """For people; nothing reads it."""


class MountAllowlist(ContractModel):
    """What additional mounts may name; NanoClaw's allowlist file, and the claims and ConfigMaps a cluster has.

    Agents never see it: it is part of the controller's settings. Without one, every additional mount is refused.
    """

    allowed_roots: tuple[AllowedRoot, ...] = ()
    """Folders of the host, or with `hostPathsOnNodes` of the nodes."""
    blocked_patterns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Refused wherever one is part of a path, besides those that always are."""
    non_main_read_only: bool = True
    """Whether groups other than main get everything read-only."""
    claims: tuple[AllowedSource, ...] = ()
    """PersistentVolumeClaims of the namespace."""
    config_maps: tuple[AllowedSource, ...] = ()
    """ConfigMaps of the namespace."""
    host_paths_on_nodes: bool = False
    """Whether agents on a cluster may mount folders of their node, where Pod Security permits it.

    Nobody resolves links there: whoever can write below an allowed root on a node chooses what is mounted.
    """

    @field_validator("config_maps")
    @classmethod
    def _only_read(cls, config_maps: tuple[AllowedSource, ...]) -> tuple[AllowedSource, ...]:
        if writable := [source.name for source in config_maps if source.allow_read_write]:
            raise ValueError(f"the ConfigMap {writable[0]!r} is always read-only; remove its allowReadWrite")
        return config_maps


class TelegramSettings(ContractModel):
    """The Telegram channel; its token is the credential TELEGRAM_BOT_TOKEN."""

    api_url: str = Field(default="https://api.telegram.org", pattern=r"^https?://\S+$")
    """Base address of the Bot API; another one for a server of your own."""

    @property
    def has_default_url(self) -> bool:
        return self == TelegramSettings()


class ChannelSettings(ContractModel):
    """Chat networks besides HTTP, which is always there."""

    telegram: TelegramSettings | None = None
    """`{}` switches it on; it is off when left out."""


class RegistrationStorage(ContractModel):
    """What the claims of groups that are added at run time ask for: the same as those the stack declares."""

    storage_class: str | None
    """The cluster's default when it is None."""
    access_modes: dict[Purpose, str]
    """Of each claim a group has."""
    sizes: dict[Purpose, Quantity]
    """Of each claim a group has."""


class ParkingSettings(ContractModel):
    """Agents that are started before their message: compiled, waiting for their input, with no secret in them.

    A parked pod keeps what an agent requests, and uses a few megabytes of it.
    """

    pods: int | None = Field(default=None, ge=0, le=1000)
    """Most pods parked at the same time; 0 parks none. Left out: none with the pattern `job` and `nodelocal`, as many
    as `maxConcurrentSessions` with `statefulset`."""
    memory: Quantity | None = None
    """What all parked pods together may request; no bound of its own when it is left out."""
    recent: float = Field(default=3600, gt=0)
    """Seconds after its last message for which a group is worth a parked pod; then it scales to zero."""
    ahead: float = Field(default=300, ge=0)
    """Seconds before a scheduled task from which its group is worth one."""


class NodelocalSettings(ContractModel):
    """The pattern `nodelocal`: which node has which group."""

    gone_after: float = Field(default=300, ge=5)
    """Seconds a node's controller may be silent until its groups are looked at: those that may be are given to others,
    the rest is reported."""
    shared: bool = False
    """Whether `nodeRoot` is the same folder on every node (a network file system): groups then move with their data."""


class ControllerConfig(ContractModel):
    """Everything the controller is told by the stack except groups and secrets."""

    pattern: Pattern = Pattern.JOB
    """Where agents run."""
    platform: Platform = Platform.KUBERNETES
    layout: Layout = Layout.PER_TYPE
    agent: AgentSettings
    """The agents' image and what each of its sessions may use."""
    transport: Transport = Transport.VOLUME
    """How messages reach agents that run: by shared volumes, or by a container beside each agent."""
    parking: ParkingSettings = ParkingSettings()
    """Agents that are started before their message."""
    nodelocal: NodelocalSettings = NodelocalSettings()
    """Which node has which group, with the pattern `nodelocal`."""
    switch_deadline: float = Field(default=600, ge=0)
    """Seconds that sessions which began under another `transport` may go on after a change; idle ones end at once."""
    fix_permissions: bool = False
    """Whether each pod first gives its volumes to uid 1000, as root: for volumes whose driver ignores fsGroup, as
    `nanoclaw doctor` finds them. Pod Security `restricted` and OpenShift refuse it."""
    placement: Placement = Placement.ANYWHERE
    """Where agents' pods may run: `controller-node` where their claims are ReadWriteOnce."""
    node_root: str = Field(default="/var/lib/nanoclaw", pattern=r"^/[^\s]*[^\s/]$")
    """Folder of each node below which groups keep their data, with the pattern `nodelocal`; uid 1000 must own it."""
    assistant_name: str = Field(default="Andy", min_length=1, max_length=60)
    """What the agents are called: groups with a trigger answer to `@Andy`."""
    timezone: TimeZone = "UTC"
    """Of scheduled tasks and of what agents are told about the time; an IANA name."""
    max_concurrent_sessions: int = Field(default=5, ge=1, le=10_000)
    """Agents that run at the same time; other groups wait for a place."""
    idle_timeout: float = Field(default=1800, gt=0)
    """Seconds without a new answer after which a session is asked to end."""
    idle_protection: float = Field(default=60, ge=0)
    """Seconds an idle session keeps its place although another group waits for one."""
    session_timeout: float = Field(default=1800, gt=0)
    """Seconds of silence after which a session is stopped, never less than `idleTimeout` + 30."""
    start_timeout: float = Field(default=120, gt=0)
    """Seconds from asking for a session's pod to its agent having the input; also for a parked one to wait for it."""
    close_grace: float = Field(default=20, gt=0)
    """Seconds an agent gets after being asked to end; it needs about six."""
    deadline: float = Field(default=86_400, ge=3600)
    """Seconds after which Kubernetes ends a session's Job whatever it does: a backstop, not a limit. A StatefulSet has
    none."""
    keep_finished: float = Field(default=300, ge=0)
    """Seconds a finished Job stays for the operator to look at."""
    registration: bool = False
    """Whether groups may be added while the controller runs, by main's agent or over the API."""
    registration_storage: RegistrationStorage | None = None
    """Filled in from the stack's `storage` where groups that are added need claims; not for the stack file."""
    mount_allowlist: MountAllowlist | None = None
    """What additional mounts may name; without it each of them is refused."""
    channels: ChannelSettings = ChannelSettings()
    """Chat networks besides HTTP."""
    bridge_image: str = ""
    """Image of the container beside each agent, with the transport `bridge`; filled in from the stack's
    `controller.image`."""
    scc: ObjectName = RESTRICTED_SCC
    """OpenShift's constraint that agents' pods ask for there; filled in from the stack's `openshift`."""
    closed_network: bool = False
    """Whether agents reach little more than the model; filled in from the stack's `network`."""
    gateway: bool = False
    """Whether agents reach the model through the gateway; filled in from the stack's `gateway`."""

    @property
    def silence_limit(self) -> float:
        """Seconds; NanoClaw's hard timeout, restarted by every output."""
        return max(self.session_timeout, self.idle_timeout + 30)

    @property
    def parked_pods(self) -> int:
        """Most pods that are parked at the same time."""
        if self.parking.pods is not None:
            return self.parking.pods
        return self.max_concurrent_sessions if self.pattern is Pattern.STATEFULSET else 0

    @property
    def bridged(self) -> bool:
        """Whether a container beside each agent carries its files."""
        return self.transport is Transport.BRIDGE and self.pattern.has_claims

    def of(self, group: GroupSpec) -> ControllerConfig:
        """As it is for one group, which may have a pattern of its own."""
        if group.pattern is None or not self.pattern.has_claims:
            return self
        return self.model_copy(update={"pattern": group.pattern})

    @model_validator(mode="after")
    def _bridge_has_claims(self) -> Self:
        if self.transport is Transport.VOLUME or self.pattern is Pattern.DOCKER:
            return self
        if self.pattern is Pattern.NODELOCAL:
            raise ValueError(
                "the pattern 'nodelocal' has its files on the controller's own node; write transport 'volume'"
            )
        if self.layout is Layout.SHARED:
            raise ValueError(
                "with the layout 'shared' all pods mount one ReadWriteMany claim, which 'bridge' is there to avoid; "
                "write transport 'volume', or layout 'per-group'"
            )
        return self


class Groups(ContractModel):
    """The content of the groups ConfigMap."""

    groups: tuple[GroupSpec, ...] = ()
    """The groups of the stack; folders and addresses are used once each."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for field in ("folder", "jid"):
            values = [getattr(group, field) for group in self.groups]
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"the {field} {repeated[0]!r} is used twice; each group needs its own")
        by_slug: dict[str, str] = {}
        for group in self.groups:
            other = by_slug.setdefault(names.slug(group.folder), group.folder)
            if other != group.folder:
                raise ValueError(f"the folders {other!r} and {group.folder!r} fold to one name; rename one")
        return self
