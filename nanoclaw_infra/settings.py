"""What a stack file may say, checked before the first resource is declared.

The only reader of `pulumi.Config` and of the environment. Everything wrong is told at once, in
sentences that name field, value and remedy. What the controller has to know is the contract's
`ControllerConfig`; it is not repeated here. Not here: what becomes of the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import pulumi
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from nanoclaw_infra.mounts import mount_problems
from nanoclaw_infra.refusals import StackRefused, sentences
from nanoclaw_runtime.contract import names, wire
from nanoclaw_runtime.contract.claims import Layout, Purpose, group_claims
from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Pattern, RegistrationStorage, Resources
from nanoclaw_runtime.contract.quantities import Quantity

LOCAL_STACK: Final = "local"
"""The stack of the embedded cluster: the one whose images are built on the spot and named by variables."""

CREDENTIALS: Final = "nanoclaw:credentials"
API_TOKEN: Final = "nanoclaw:apiToken"  # noqa: S105

_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE: Final = re.compile(
    r"(?P<name>[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+|[a-z0-9._-]+)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def _image(reference: str) -> str:
    match = _IMAGE.fullmatch(reference)
    if match is None:
        raise ValueError(f"{reference!r} is no image reference; write one like 'registry.example/nanoclaw/agent:1.2'")
    if bool(match["tag"]) == bool(match["digest"]):
        raise ValueError(f"{reference!r} needs a tag or a digest, exactly one of them; write ':1.2' or '@sha256:…'")
    return reference


Image = Annotated[str, AfterValidator(_image)]
"""An image reference with a tag or a digest, exactly one: with none the node decides, with both one of them lies."""


class _Settings(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class NamespaceSettings(_Settings):
    """Where the installation lives. Everything of it, agents included, is in one namespace."""

    name: str = "nanoclaw"
    create: bool = True
    """Whether the stack makes the namespace; False when somebody else hands out namespaces."""

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name!r} is no namespace; write 1 to 63 lower-case letters, digits and '-'")
        if name == "default" or name.startswith(("kube-", "openshift-")):
            raise ValueError(f"{name!r} belongs to the cluster; write a namespace of its own, like 'nanoclaw'")
        return name


class ClusterSettings(_Settings):
    """Which cluster; never the ambient context."""

    kubeconfig: str = "~/.kube/config"
    """Path of a kubeconfig; `~` and `$VARIABLES` are expanded."""
    context: str | None = None
    """Context in it; its current one when left out."""

    @field_validator("kubeconfig")
    @classmethod
    def _exists(cls, kubeconfig: str) -> str:
        if not Path(kubeconfig).expanduser().is_file():
            raise ValueError(
                f"there is no file {kubeconfig!r}; write the path of a kubeconfig (for the embedded cluster: `make up`)"
            )
        return kubeconfig


class StorageSettings(_Settings):
    """Which storage the claims ask for."""

    storage_class: str | None = None
    """StorageClass of the groups' claims; the cluster's default when left out."""
    database_storage_class: str | None = None
    """StorageClass of the controller's database, where that needs block storage; as `storageClass` when left out."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Of the groups' claims. Controller and agents mount them together: ReadWriteOnce needs a cluster of one node."""
    sizes: dict[Purpose, Quantity] = Field(default_factory=dict)
    """Size by purpose; what is left out gets its default."""

    def size(self, purpose: Purpose) -> str:
        return self.sizes.get(purpose, _SIZES[purpose])


_SIZES: Final = {
    Purpose.GROUP: "2Gi",
    Purpose.IPC: "256Mi",
    Purpose.SESSIONS: "2Gi",
    Purpose.PROJECT: "1Gi",
    Purpose.GLOBAL: "256Mi",
    Purpose.STORE: "2Gi",
    Purpose.DATA: "20Gi",
}


class ControllerResources(Resources):
    """Requests and limits of the controller: one Python process that waits most of the time."""

    cpu_request: Quantity = "100m"
    memory_request: Quantity = "192Mi"
    cpu_limit: Quantity = "1"
    memory_limit: Quantity = "512Mi"


class ControllerSettings(_Settings):
    """The controller's own container."""

    image: Image
    """Reference of the controller's image."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    resources: ControllerResources = ControllerResources()


class CredentialsSettings(_Settings):
    """Where the agents' credentials come from, unless they are encrypted in the stack file."""

    existing_secret: str | None = Field(default=None, min_length=1, max_length=253)
    """Name of a Secret that somebody else keeps in the namespace."""


class StackSettings(_Settings):
    """Everything a stack says that is not secret."""

    namespace: NamespaceSettings = NamespaceSettings()
    cluster: ClusterSettings
    storage: StorageSettings = StorageSettings()
    controller: ControllerSettings
    """The controller's container: image and resources."""
    runtime: ControllerConfig
    """What the controller and the agents do: agent image, limits, times."""
    groups: Groups = Groups()
    """The chat groups that have an agent."""
    credentials: CredentialsSettings = CredentialsSettings()
    protect_data: bool = True
    """Whether destroying or changing the stack may never take conversations with it."""

    @field_validator("runtime")
    @classmethod
    def _on_a_cluster(cls, runtime: ControllerConfig) -> ControllerConfig:
        if runtime.pattern is Pattern.DOCKER:
            raise ValueError(
                f"the pattern {runtime.pattern.value!r} runs on a Docker host, by `nanoclaw host`; write 'job' here"
            )
        return runtime

    @field_validator("runtime")
    @classmethod
    def _agent_image(cls, runtime: ControllerConfig) -> ControllerConfig:
        try:
            _image(runtime.agent.image)
        except ValueError as problem:
            raise ValueError(f"agent.image: {problem}") from None
        return runtime

    @model_validator(mode="after")
    def _agents_get_their_time(self) -> Self:
        if self.runtime.deadline <= self.runtime.silence_limit:
            raise ValueError(
                f"runtime.deadline is {self.runtime.deadline:g} s, not above the silence limit of "
                f"{self.runtime.silence_limit:g} s; raise it, it is the backstop behind that limit"
            )
        return self

    @property
    def told(self) -> ControllerConfig:
        """`runtime` as the controller gets it: where it makes claims itself, with what they ask for."""
        if not (self.runtime.registration and self.runtime.layout is Layout.PER_TYPE):
            return self.runtime
        purposes = [claim.purpose for claim in group_claims(self.runtime.layout, names.MAIN_FOLDER)]
        storage = RegistrationStorage(
            storage_class=self.storage.storage_class,
            access_mode=self.storage.access_mode,
            sizes={purpose: self.storage.size(purpose) for purpose in purposes},
        )
        return self.runtime.model_copy(update={"registration_storage": storage})

    @classmethod
    def read(cls, stack: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """Settings from `values`: `platform`, `layout`, `protectData` and the map `settings` of a stack file.

        Raises StackRefused with a sentence for every mistake.
        """
        raw = values.get("settings", {})
        if not isinstance(raw, dict):
            raise StackRefused(stack, [f"nanoclaw:settings is {raw!r}; write a map of settings"])
        problems = [
            f"nanoclaw:settings.{'.'.join(path)} has a key of its own; write nanoclaw:{path[-1]}"
            for path in (("runtime", "platform"), ("runtime", "layout"), ("protectData",))
            if _at(raw, path) is not None
        ]
        if _at(raw, ("runtime", "registrationStorage")) is not None:
            problems.append(
                "nanoclaw:settings.runtime.registrationStorage is made from nanoclaw:settings.storage; remove it"
            )
        raw = _expanded(raw, stack, environ, problems)
        if problems:
            raise StackRefused(stack, problems)
        runtime = raw.get("runtime", {})

        given = {key: values[key] for key in ("platform", "layout") if key in values}
        if isinstance(runtime, dict):
            raw |= {"runtime": runtime | given}
        if "groups" in raw:
            raw |= {"groups": {"groups": raw["groups"]}}
        if "protectData" in values:
            raw |= {"protectData": values["protectData"]}
        try:
            settings = cls.model_validate(raw)
        except ValidationError as refused:
            raise StackRefused(stack, sentences(refused.errors(), cls)) from None
        if problems := mount_problems(settings.runtime, settings.groups, own_namespace=settings.namespace.create):
            raise StackRefused(stack, problems)
        return settings


def _expanded(raw: dict[str, Any], stack: str, environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """`raw` with the variables of the three fields that may hold one; a problem for each that cannot be."""
    for path, anywhere, remedy in (
        (("cluster", "kubeconfig"), True, "set it to the path of a kubeconfig"),
        (("controller", "image"), False, "set it to an image reference"),
        (("runtime", "agent", "image"), False, "set it to an image reference"),
    ):
        value = _at(raw, path)
        if not isinstance(value, str) or not (variables := _VARIABLE.findall(value)):
            continue
        field = f"nanoclaw:settings.{'.'.join(path)}"
        if not anywhere and stack != LOCAL_STACK:
            problems.append(f"{field} is {value!r}; only the stack {LOCAL_STACK!r} takes its images from variables")
        elif unset := [name for name in variables if not environ.get(name)]:
            problems.append(f"{field} is {value!r}, and {unset[0]} is not set; {remedy} (`make up` does that)")
        else:
            raw = _with(raw, path, _VARIABLE.sub(lambda match: environ[match[1]], value))
    return raw


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _with(tree: dict[str, Any], path: tuple[str, ...], value: str) -> dict[str, Any]:
    head, *rest = path
    return tree | {head: _with(tree[head], tuple(rest), value) if rest else value}


@dataclass(frozen=True)
class StackSecrets:
    """What a stack keeps encrypted; the values are secret Outputs, never plain text."""

    credentials: pulumi.Output[dict[str, str]] | None
    """What agents get on stdin and what the controller keeps for its chat networks, by the names of
    `contract.wire.SECRET_KEYS` and `CHANNEL_SECRET_KEYS`."""
    api_token: pulumi.Output[str] | None
    """Bearer token of the controller's API; generated once when left out."""

    @classmethod
    def read(cls, stack: str, config: pulumi.Config, settings: StackSettings) -> Self:
        """The secrets of the stack.

        Raises StackRefused when one is not encrypted, is missing, or nobody would get it, or when credentials come
        from two sides.
        """
        problems = [
            f"{key} is in the stack file as plain text; remove it and run `pulumi config set --secret {how}`"
            for key, how in ((CREDENTIALS, f"--path {CREDENTIALS}.{wire.SECRET_KEYS[0]}"), (API_TOKEN, API_TOKEN))
            if pulumi.runtime.get_config(key) is not None and not pulumi.runtime.is_config_secret(key)
        ]
        given = config.get_object(CREDENTIALS.partition(":")[2])
        if given is not None and not isinstance(given, dict):
            problems.append(f"{CREDENTIALS} is not a map; give one credential a key, with --path")
        else:
            problems += _useless(given or {}) + _missing(given or {}, settings)
        if given is not None and settings.credentials.existing_secret:
            problems.append(
                f"{CREDENTIALS} is set and nanoclaw:settings.credentials.existingSecret is "
                f"{settings.credentials.existing_secret!r}; keep one of them"
            )
        if problems:
            raise StackRefused(stack, problems)
        return cls(
            credentials=None if given is None else pulumi.Output.secret(given),
            api_token=config.get_secret(API_TOKEN.partition(":")[2]),
        )


def _useless(credentials: Mapping[str, Any]) -> list[str]:
    known = (*wire.SECRET_KEYS, *wire.CHANNEL_SECRET_KEYS)
    unknown = sorted(credentials.keys() - set(known))
    return [f"{CREDENTIALS}.{unknown[0]} is passed on to nobody; there are {', '.join(known)}"] if unknown else []


def _missing(credentials: Mapping[str, Any], settings: StackSettings) -> list[str]:
    """What a Secret of somebody else holds cannot be seen from here."""
    key, telegram = wire.TELEGRAM_TOKEN_KEY, settings.runtime.channels.telegram
    if telegram is None or credentials.get(key) or settings.credentials.existing_secret:
        return []
    told = (
        f"nanoclaw:settings.runtime.channels.telegram is set, and there is no {key}; run "
        f"`pulumi config set --secret --path {CREDENTIALS}.{key}`, or name a Secret that has it in "
        "nanoclaw:settings.credentials.existingSecret"
    )
    return [told]


@dataclass(frozen=True)
class Stack:
    """One environment, read and checked."""

    name: str
    settings: StackSettings
    secrets: StackSecrets


def load_stack(environ: Mapping[str, str]) -> Stack:
    """The stack the engine runs the program for. Raises StackRefused with everything that is wrong with it."""
    name, config = pulumi.get_stack(), pulumi.Config("nanoclaw")
    values: dict[str, Any] = {key: value for key in ("platform", "layout") if (value := config.get(key)) is not None}
    if (protect := config.get_bool("protectData")) is not None:
        values["protectData"] = protect
    if (rest := config.get_object("settings")) is not None:
        values["settings"] = rest
    settings = StackSettings.read(name, values, environ)
    return Stack(name, settings, StackSecrets.read(name, config, settings))
