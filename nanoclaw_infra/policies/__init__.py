"""What must be true of the objects a stack declares, whoever changes the program: plain functions over manifests.

The tests ask them of every committed stack, and the policy pack in `policies/` has the engine ask them in a preview,
before anything is changed. Each says why it is there, and names object, field and remedy. Not here: what a stack file
may say (`settings`), and what admission refuses in the cluster (`guardrails`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nanoclaw_infra.policies import each, whole
from nanoclaw_infra.policies.declared import Declared, Stack


@dataclass(frozen=True)
class ObjectPolicy:
    """About one object by itself, so that the engine can refuse it before it is made."""

    name: str
    why: str
    check: Callable[[Declared], Iterator[str]]
    mandatory: bool = True

    def over(self, stack: Stack) -> Iterator[tuple[Declared | None, str]]:
        for declared in stack.objects:
            for sentence in self.check(declared):
                yield declared, sentence


@dataclass(frozen=True)
class StackPolicy:
    """About objects in the light of the others: the platform, the pattern, whether it is production."""

    name: str
    why: str
    check: Callable[[Stack], Iterator[tuple[Declared | None, str]]]
    mandatory: bool = True

    def over(self, stack: Stack) -> Iterator[tuple[Declared | None, str]]:
        return self.check(stack)


OBJECT_POLICIES: Final = (
    ObjectPolicy(
        "requests-and-limits",
        "A container without limits can starve its node, one without requests is the first to be starved.",
        each.requests_and_limits,
    ),
    ObjectPolicy(
        "no-wildcard-rights",
        "A right that is not spelt out grows with every release of Kubernetes; whoever lists secrets has them all.",
        each.no_wildcard_rights,
    ),
    ObjectPolicy(
        "no-cluster-rights",
        "An installation lives in one namespace and needs nothing outside it.",
        each.no_cluster_rights,
    ),
    ObjectPolicy(
        "never-privileged",
        "Agents run what a model thought of; the node must be out of reach of every pod beside them.",
        each.never_privileged,
    ),
    ObjectPolicy(
        "no-door-to-the-outside",
        "The controller's API is reached through the API server, which knows who asks.",
        each.no_door_to_the_outside,
    ),
    ObjectPolicy(
        "tokens-for-the-controller-alone",
        "Only the controller calls the API server; a token anywhere else is one to steal.",
        each.tokens_for_the_controller_alone,
    ),
)

STACK_POLICIES: Final = (
    StackPolicy(
        "no-folders-of-nodes",
        "Folders of a node are shared with everything on it, and OpenShift and Pod Security refuse them.",
        whole.no_folders_of_nodes,
    ),
    StackPolicy(
        "no-fixed-ids-on-openshift",
        "OpenShift gives each namespace a range of users; restricted-v2 refuses every other id.",
        whole.no_fixed_ids_on_openshift,
    ),
    StackPolicy(
        "images-have-a-version",
        "What `latest` is changes under a running installation, and nobody can go back.",
        whole.images_have_a_version,
    ),
    StackPolicy(
        "images-by-digest",
        "A tag can be moved; a digest is the image.",
        whole.images_by_digest,
        mandatory=False,
    ),
    StackPolicy(
        "network-policies-for-all",
        "A pod that no policy selects may talk to everybody.",
        whole.network_policies_for_all,
    ),
    StackPolicy(
        "production-keeps-its-data",
        "Conversations cannot be made again.",
        whole.production_keeps_its_data,
    ),
    StackPolicy(
        "data-that-may-go",
        "An exception that was needed once should not stay.",
        whole.data_that_may_go,
        mandatory=False,
    ),
)

POLICIES: Final[Sequence[ObjectPolicy | StackPolicy]] = (*OBJECT_POLICIES, *STACK_POLICIES)


@dataclass(frozen=True)
class Violation:
    policy: ObjectPolicy | StackPolicy
    declared: Declared | None
    sentence: str


def violations(stack: Stack, policies: Iterable[ObjectPolicy | StackPolicy] = POLICIES) -> list[Violation]:
    """Everything in the stack that breaks one of the policies."""
    return [Violation(policy, declared, sentence) for policy in policies for declared, sentence in policy.over(stack)]
