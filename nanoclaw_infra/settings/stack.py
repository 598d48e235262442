"""Everything a stack file may say, checked before the first resource is declared.

Everything wrong is told at once, in sentences that name field, value and remedy. What the
controller has to know is the contract's `ControllerConfig`; it is not repeated here. Not here:
what becomes of the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ValidationError, field_validator, model_validator

from nanoclaw_infra.settings import rules
from nanoclaw_infra.settings.base import FILLED_IN, OWN_KEYS, ControllerSettings, Settings, valid_image
from nanoclaw_infra.settings.gateway import GatewaySettings
from nanoclaw_infra.settings.network import NetworkSettings
from nanoclaw_infra.settings.place import ClusterSettings, NamespaceSettings
from nanoclaw_infra.settings.platform import (
    CredentialsSettings,
    GuardrailSettings,
    MonitoringSettings,
    OpenShiftSettings,
    PrioritySettings,
)
from nanoclaw_infra.settings.refusals import StackRefused, sentences
from nanoclaw_infra.settings.storage import StorageSettings
from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Pattern

LOCAL_STACK: Final = "local"
"""The stack of the embedded cluster: the one whose addresses and images are known on the spot and come by variables."""

_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_PRECIOUS: Final = re.compile(r"(Namespace|PersistentVolumeClaim)/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def _valid_precious(name: str) -> str:
    if not _PRECIOUS.fullmatch(name):
        raise ValueError(
            f"{name!r} names no object that holds data; write 'PersistentVolumeClaim/NAME' or 'Namespace/NAME'"
        )
    return name


class StackSettings(Settings):
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
    network: NetworkSettings = NetworkSettings()
    gateway: GatewaySettings = GatewaySettings()
    openshift: OpenShiftSettings = OpenShiftSettings()
    priorities: PrioritySettings = PrioritySettings()
    guardrails: GuardrailSettings = GuardrailSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    allow_data_loss: tuple[Annotated[str, AfterValidator(_valid_precious)], ...] = ()
    """Claims and namespaces that may go, as `PersistentVolumeClaim/NAME`: no longer protected, and a preview that
    deletes or replaces one is no failure."""
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
            valid_image(runtime.agent.image)
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

    def protects(self, kind: str, name: str) -> bool:
        """Whether this Namespace or claim outlives the stack and whatever is done to it."""
        return self.protect_data and f"{kind}/{name}" not in self.allow_data_loss

    @classmethod
    def read(cls, stack: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """Settings from `values`: `platform`, `layout`, `protectData` and the map `settings` of a stack file.

        Raises StackRefused with a sentence for every mistake.
        """
        raw = values.get("settings", {})
        if not isinstance(raw, dict):
            raise StackRefused(stack, [f"nanoclaw:settings is {raw!r}; write a map of settings"])
        problems = _misplaced(raw)
        raw = _expanded(raw, stack, environ, problems)
        if problems:
            raise StackRefused(stack, problems)
        try:
            settings = cls.model_validate(_assembled(raw, values))
        except ValidationError as refused:
            raise StackRefused(stack, sentences(refused.errors(), cls)) from None
        if problems := rules.problems(settings):
            raise StackRefused(stack, problems)
        return settings


def _misplaced(raw: dict[str, Any]) -> list[str]:
    return [
        f"nanoclaw:settings.{'.'.join(path)} has a key of its own; write {key}"
        for path, key in OWN_KEYS.items()
        if _at(raw, path) is not None
    ] + [
        f"nanoclaw:settings.runtime.{field} is made from {source}; remove it"
        for field, source in FILLED_IN.items()
        if _at(raw, ("runtime", field)) is not None
    ]


def _assembled(raw: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The map a `StackSettings` is read from, with what has keys of its own in its place."""
    runtime = raw.get("runtime", {})
    if isinstance(runtime, dict):
        raw = raw | {"runtime": runtime | {key: values[key] for key in ("platform", "layout") if key in values}}
    if "groups" in raw:
        raw |= {"groups": {"groups": raw["groups"]}}
    if "protectData" in values:
        raw |= {"protectData": values["protectData"]}
    return raw


def _expanded(raw: dict[str, Any], stack: str, environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """`raw` with its variables replaced; a problem for each that cannot be.

    The path of a kubeconfig may hold some anywhere; whatever else changes with the machine belongs to the local stack.
    """

    def value(given: Any, path: tuple[str, ...]) -> Any:
        if isinstance(given, dict):
            return {key: value(inner, (*path, str(key))) for key, inner in given.items()}
        if isinstance(given, list):
            return [value(inner, path) for inner in given]
        if not isinstance(given, str) or not (variables := _VARIABLE.findall(given)):
            return given
        field = f"nanoclaw:settings.{'.'.join(path)}"
        if path != ("cluster", "kubeconfig") and stack != LOCAL_STACK:
            if path in {("controller", "image"), ("runtime", "agent", "image")}:
                problems.append(f"{field} is {given!r}; only the stack {LOCAL_STACK!r} takes its images from variables")
            return given
        if unset := [name for name in variables if not environ.get(name)]:
            problems.append(f"{field} is {given!r}, and {unset[0]} is not set; {_REMEDIES.get(path, 'set it')}")
            return given
        return _VARIABLE.sub(lambda match: environ[match[1]], given)

    expanded: dict[str, Any] = value(raw, ())
    return expanded


_REMEDIES: Final = {
    ("cluster", "kubeconfig"): "set it to the path of a kubeconfig (`make up` does that)",
    ("controller", "image"): "set it to an image reference (`make up` does that)",
    ("runtime", "agent", "image"): "set it to an image reference (`make up` does that)",
}


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
