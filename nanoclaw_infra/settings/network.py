"""Who may talk to whom: what the NetworkPolicies of the stack let through."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from nanoclaw_infra.settings.base import Settings

ANTHROPIC: Final = ("160.79.104.0/23", "2607:6bc0::/48")
"""Where api.anthropic.com answers, as Anthropic publishes it under the name of its API's IP addresses (inbound)."""
TELEGRAM: Final = ("149.154.160.0/20", "91.108.4.0/22", "2001:67c:4e8::/48")
"""Where Telegram's Bot API answers, as Telegram publishes its ranges."""
METADATA: Final = ("169.254.169.254/32", "fd00:ec2::254/128")
"""Where clouds hand out a node's credentials to whoever asks."""
HTTPS: Final = (443,)
API_SERVER_PORTS: Final = (443, 6443)
"""Where API servers are found, when nobody says where this one is."""


def _valid_cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as problem:
        raise ValueError(f"{text!r} is no range of addresses ({problem}); write one like '10.0.0.0/24'") from None


CIDR_PATTERN: Final = r"^[0-9A-Fa-f.:]+(/\d{1,3})?$"
"""As much of it as a pattern can say."""
Cidr = Annotated[str, AfterValidator(_valid_cidr), Field(json_schema_extra={"pattern": CIDR_PATTERN})]
Port = Annotated[int, Field(ge=1, le=65535)]


class Peer(Settings):
    """Addresses outside the cluster, or pods in it, at some TCP ports; what NetworkPolicy calls a peer."""

    cidr: Cidr | None = None
    """A range of addresses."""
    except_: tuple[Cidr, ...] = Field(default=(), alias="except")
    """Parts of `cidr` that stay closed."""
    namespace: dict[str, str] | None = None
    """Labels of a namespace, `{}` for all; of its pods those that `pods` selects."""
    pods: dict[str, str] | None = None
    """Labels of pods, in the installation's own namespace unless `namespace` names another."""
    ports: tuple[Port, ...] = Field(default=HTTPS, min_length=1)
    """TCP ports of the pods or hosts themselves, not of a Service in front of them."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        inside = self.namespace is not None or self.pods is not None
        if inside == (self.cidr is not None):
            raise ValueError("a peer is a `cidr`, or `namespace` and `pods`; write one of the two kinds")
        if self.except_ and self.cidr is None:
            raise ValueError("`except` takes away from a `cidr`; name that too, or remove it")
        for part in self.except_:
            if not _within(part, self.cidr or ""):
                raise ValueError(f"`except` has {part!r}, which is no part of {self.cidr!r}; remove it")
        return self

    def opens(self, address: str) -> bool:
        """Whether it lets through to this address or range outside the cluster, or to a part of it."""
        if self.cidr is None or not _overlap(address, self.cidr):
            return False
        return not any(_within(address, part) for part in self.except_)

    @property
    def is_everywhere(self) -> bool:
        return self.cidr is not None and ipaddress.ip_network(self.cidr).prefixlen == 0


def _within(part: str, whole: str) -> bool:
    inner, outer = ipaddress.ip_network(part), ipaddress.ip_network(whole)
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)


class ApiServer(Settings):
    """The cluster's API server, as pods see it behind the Service `kubernetes`."""

    cidrs: tuple[Cidr, ...] = Field(min_length=1)
    """Its addresses: `kubectl get endpoints kubernetes`. With some plug-ins calls through it come from other ones: name
    them in `clients` when `nanoclaw` gets no answer, and for the gateway in `scrapers`. OpenShift's are known."""
    ports: tuple[Port, ...] = (6443,)
    """TCP ports it listens on."""


class NetworkSettings(Settings):
    """Default deny, and what is let through. Needs a network plug-in that enforces NetworkPolicies."""

    enabled: bool = True
    """Whether the stack makes NetworkPolicies; without them every pod may talk to everybody."""
    dns_namespace: dict[str, str] = Field(default_factory=lambda: {"kubernetes.io/metadata.name": "kube-system"})
    """Labels of the namespace cluster DNS runs in; OpenShift's is `openshift-dns`."""
    api_server: ApiServer | None = None
    """Where the API server is. Left out, the controller may reach TCP 443 and 6443 anywhere, and anybody its API."""
    agents: tuple[Peer, ...] | None = None
    """What agents reach besides DNS and the gateway; Anthropic's published addresses when there is no gateway."""
    controller: tuple[Peer, ...] = ()
    """What the controller reaches besides DNS and the API server: PostgreSQL, for one."""
    gateway: tuple[Peer, ...] | None = None
    """What the model gateway reaches besides DNS; Anthropic's published addresses when it is left out."""
    clients: tuple[Peer, ...] = ()
    """Who may call the controller's API besides the API server's own proxy; `ports` are not looked at."""
    scrapers: tuple[Peer, ...] = ()
    """Who may read metrics, as `{namespace: {kubernetes.io/metadata.name: monitoring}}`; `ports` are not looked at."""
