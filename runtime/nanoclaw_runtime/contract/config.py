"""The controller's settings and the groups, as the stack hands them over.

The Pulumi program validates and writes them, the runtime reads the same models: a mistake stops
`pulumi preview`, never a pod. Times are seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self
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
ENV_DATABASE_URL: Final = "NANOCLAW_DATABASE_URL"
"""Optional; SQLite on the store claim when it is not set."""


class Platform(StrEnum):
    """Who chooses uid and gid of the pods: we (1000) on Kubernetes, the namespace's range on OpenShift."""

    KUBERNETES = "kubernetes"
    OPENSHIFT = "openshift"


class Pattern(StrEnum):
    """Where agents run."""

    JOB = "job"
    """One Job a session, on the cluster."""
    DOCKER = "docker"
    """One container a session, on a Docker host, from the same tree: the way back, and the way in."""


class Priority(StrEnum):
    """Who goes first when groups wait for a place: a head start in the queue, never a right to starve others."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class _Settings(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", use_attribute_docstrings=True
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


Folder = Annotated[str, AfterValidator(_valid_folder), Field(json_schema_extra={"pattern": names.FOLDER_PATTERN})]
TimeZone = Annotated[str, AfterValidator(_valid_timezone)]


class Resources(_Settings):
    """Requests and limits of a container, as Kubernetes quantities; the defaults suit an agent."""

    cpu_request: Quantity = "250m"
    memory_request: Quantity = "256Mi"
    cpu_limit: Quantity = "1"
    """Below one CPU the agent's start-up compile takes 19 s instead of 5."""
    memory_limit: Quantity = "1Gi"

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


class AdditionalMount(_Settings):
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("host_path", "claim", "config_map") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(to_camel(name) for name in given)}" if given else "it has none"
            raise ValueError(f"a mount needs exactly one of hostPath, claim and configMap; {found}")
        if self.sub_path is not None and self.claim is None:
            raise ValueError("only a claim has a subPath; name the folder itself in hostPath, or remove it")
        return self


class ContainerConfig(_Settings):
    """What a group's agents have beyond the others; NanoClaw's `containerConfig`."""

    additional_mounts: tuple[AdditionalMount, ...] = Field(default=(), max_length=64)
    timeout: float | None = Field(default=None, gt=0)
    """Seconds; the group's own `sessionTimeout`."""


class GroupSpec(_Settings):
    """A chat group with an agent of its own."""

    folder: Folder
    name: str = Field(min_length=1, max_length=200)
    jid: str = Field(default="", max_length=255)
    """The chat's address at its network; `http:<folder>` when it is left out."""
    requires_trigger: bool = True
    """Whether only messages that begin with `@<assistant name>` are answered; main answers everything."""
    priority: Priority = Priority.NORMAL
    container_config: ContainerConfig = ContainerConfig()

    @model_validator(mode="after")
    def _default_jid(self) -> Self:
        if not self.jid:
            object.__setattr__(self, "jid", f"http:{self.folder}")
        return self

    @property
    def is_main(self) -> bool:
        return self.folder == names.MAIN_FOLDER


class AgentSettings(_Settings):
    """The agents' image and what each of its sessions may use."""

    image: str = Field(min_length=1)
    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    resources: Resources = Resources()
    env: Annotated[dict[str, str], AfterValidator(_valid_env)] = Field(default_factory=dict)
    """Plain settings for every agent container. Secrets do not belong here: they go over stdin."""


class AllowedSource(_Settings):
    """A claim or ConfigMap that groups may mount; never one of the installation itself."""

    name: str = Field(min_length=1, max_length=253)
    allow_read_write: bool = False

    @field_validator("name")
    @classmethod
    def _not_ours(cls, name: str) -> str:
        if name.startswith(names.OWN_PREFIX):
            raise ValueError(
                f"{name!r} begins as the installation's own objects do, which agents never mount; choose another name"
            )
        return name


class AllowedRoot(_Settings):
    """A folder of the host below which groups may mount."""

    path: str = Field(min_length=1, max_length=4096)
    allow_read_write: bool = False
    description: str = ""


class MountAllowlist(_Settings):
    """What additional mounts may name; NanoClaw's allowlist file, and the claims and ConfigMaps a cluster has.

    Agents never see it: it is part of the controller's settings. Without one, every additional mount is refused.
    """

    allowed_roots: tuple[AllowedRoot, ...] = ()
    blocked_patterns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Refused wherever one is part of a path, besides those that always are."""
    non_main_read_only: bool = True
    """Whether groups other than main get everything read-only."""
    claims: tuple[AllowedSource, ...] = ()
    config_maps: tuple[AllowedSource, ...] = ()
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


class TelegramSettings(_Settings):
    """The Telegram channel; its token is the credential TELEGRAM_BOT_TOKEN."""

    api_url: str = Field(default="https://api.telegram.org", pattern=r"^https?://\S+$")
    """Base address of the Bot API; another one for a server of your own."""


class ChannelSettings(_Settings):
    """Chat networks besides HTTP, which is always there."""

    telegram: TelegramSettings | None = None


class RegistrationStorage(_Settings):
    """What the claims of groups that are added at run time ask for: the same as those the stack declares."""

    storage_class: str | None
    """The cluster's default when it is None."""
    access_mode: str
    sizes: dict[Purpose, Quantity]
    """Of each claim a group has."""


class ControllerConfig(_Settings):
    """Everything the controller is told by the stack except groups and secrets."""

    pattern: Pattern = Pattern.JOB
    platform: Platform = Platform.KUBERNETES
    layout: Layout = Layout.PER_TYPE
    agent: AgentSettings
    assistant_name: str = Field(default="Andy", min_length=1, max_length=60)
    timezone: TimeZone = "UTC"
    max_concurrent_sessions: int = Field(default=5, ge=1, le=10_000)
    idle_timeout: float = Field(default=1800, gt=0)
    """Seconds without a new answer after which a session is asked to end."""
    idle_protection: float = Field(default=60, ge=0)
    """Seconds an idle session keeps its place although another group waits for one."""
    session_timeout: float = Field(default=1800, gt=0)
    """Seconds of silence after which a session is stopped, never less than `idle_timeout` + 30."""
    start_timeout: float = Field(default=120, gt=0)
    """Seconds from creating a session's Job to its agent having the input."""
    close_grace: float = Field(default=20, gt=0)
    """Seconds an agent gets after being asked to end; it needs about six."""
    deadline: float = Field(default=86_400, ge=3600)
    """Seconds after which Kubernetes ends a session's Job whatever it does: a backstop, not a limit."""
    keep_finished: float = Field(default=300, ge=0)
    """Seconds a finished Job stays for the operator to look at."""
    registration: bool = False
    """Whether groups may be added while the controller runs, by main's agent or over the API."""
    registration_storage: RegistrationStorage | None = None
    """Filled in from the stack's `storage` where groups that are added need claims; not for the stack file."""
    mount_allowlist: MountAllowlist | None = None
    channels: ChannelSettings = ChannelSettings()

    @property
    def silence_limit(self) -> float:
        """Seconds; NanoClaw's hard timeout, restarted by every output."""
        return max(self.session_timeout, self.idle_timeout + 30)


class Groups(_Settings):
    """The content of the groups ConfigMap."""

    groups: tuple[GroupSpec, ...] = ()

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
