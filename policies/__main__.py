"""The policies of `nanoclaw_infra.policies`, for the engine: `pulumi preview --policy-pack policies`.

Reads neither the stack's configuration nor the environment, which not every engine hands to a policy pack.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from nanoclaw_infra.policies import OBJECT_POLICIES, STACK_POLICIES, ObjectPolicy, StackPolicy
from nanoclaw_infra.policies.declared import Declared, Stack

UNKNOWN = "(known after the update)"


def known(value: Any) -> Any:
    """A copy without the engine's proxies; what is not known yet is a text that says so."""
    if isinstance(value, Mapping):
        return {key: _at(value, key) for key in value}
    if isinstance(value, list):
        return [_at(value, position) for position in range(len(value))]
    return value


def _at(values: Any, key: Any) -> Any:
    try:
        return known(values[key])
    except UnknownValueError:
        return UNKNOWN


def _is_object(resource_type: str) -> bool:
    return resource_type.startswith("kubernetes:")


def _level(policy: ObjectPolicy | StackPolicy) -> EnforcementLevel:
    return EnforcementLevel.MANDATORY if policy.mandatory else EnforcementLevel.ADVISORY


def of_object(policy: ObjectPolicy) -> Policy:
    def validate(asked: ResourceValidationArgs, report: ReportViolation) -> None:
        if _is_object(asked.resource_type):
            for sentence in policy.check(Declared(known(asked.props), protect=asked.opts.protect)):
                report(sentence, None)

    return ResourceValidationPolicy(policy.name, policy.why, validate, enforcement_level=_level(policy))


def of_stack(policy: StackPolicy) -> Policy:
    def validate(asked: StackValidationArgs, report: ReportViolation) -> None:
        objects = [
            Declared(known(each.props), protect=each.opts.protect, urn=each.urn)
            for each in asked.resources
            if _is_object(each.resource_type)
        ]
        name = objects[0].urn.split(":")[2] if objects and objects[0].urn else ""
        for declared, sentence in policy.check(Stack(objects, name)):
            report(sentence, declared.urn if declared else None)

    return StackValidationPolicy(policy.name, policy.why, validate, enforcement_level=_level(policy))


# The engine waits for the port on stdout, and the library does not flush it.
sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)

PolicyPack(
    "nanoclaw",
    policies=[*(of_object(each) for each in OBJECT_POLICIES), *(of_stack(each) for each in STACK_POLICIES)],
)
