"""Policies about objects in the light of their stack. Each yields the object, if there is one, and a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from nanoclaw_infra.policies.declared import Declared, Stack
from nanoclaw_runtime.contract import labels

Found = Iterator[tuple[Declared | None, str]]

_TAG: Final = re.compile(r":(?P<tag>[\w][\w.-]*)$")
_IDS: Final = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")


def no_folders_of_nodes(stack: Stack) -> Found:
    if stack.nodelocal:
        return
    for declared in stack.objects:
        for position, volume in enumerate((declared.pod or {}).get("volumes") or []):
            if volume.get("hostPath"):
                place = f"volumes[{position}].hostPath"
                yield declared, declared.says(place, "is a folder of the node; mount a claim")


def no_fixed_ids_on_openshift(stack: Stack) -> Found:
    if not stack.openshift:
        return
    for declared in stack.objects:
        places = [("securityContext", (declared.pod or {}).get("securityContext"))]
        places += [(f"{at}.securityContext", each.get("securityContext")) for at, each in declared.containers()]
        for place, security in places:
            for field in _IDS:
                if (value := (security or {}).get(field)) is not None:
                    told = f"is {value}; leave it out, OpenShift fills it in from the namespace's range"
                    yield declared, declared.says(f"{place}.{field}", told)


def images_have_a_version(stack: Stack) -> Found:
    for declared, place, image in stack.images():
        tag = _TAG.search(image)
        if "@sha256:" in image or (tag and (tag["tag"] != "latest" or not stack.production)):
            continue
        yield declared, declared.says(place, f"is {image!r}, whatever that is today; write a version or a digest")


def images_by_digest(stack: Stack) -> Found:
    for declared, place, image in stack.images():
        if stack.production and "@sha256:" not in image:
            yield declared, declared.says(place, f"is {image!r}; in production write its digest, '@sha256:…'")


def network_policies_for_all(stack: Stack) -> Found:
    """Where the controller is told that the network is closed, policies must close it."""
    if not stack.settings.get("closedNetwork"):
        return
    policies = [each.manifest.get("spec") or {} for each in stack.objects if each.kind == "NetworkPolicy"]
    components = {each.component for each in stack.objects if each.pod is not None} | {labels.AGENT}
    for component in sorted(components):
        pod = labels.component(component)
        selecting = [spec for spec in policies if _selects(spec, pod)]
        for direction in ("Ingress", "Egress"):
            if not any(direction in (spec.get("policyTypes") or []) for spec in selecting):
                told = (
                    f"no NetworkPolicy bounds their {direction.lower()}; declare one, or set network.enabled to false"
                )
                yield None, f"pods of the component {component!r}: {told}"


def _selects(policy: dict[str, object], pod: dict[str, str]) -> bool:
    """Whether a policy's `matchLabels` select such a pod; ours have no other selectors."""
    selector = policy.get("podSelector")
    wanted = selector.get("matchLabels") or {} if isinstance(selector, dict) else {}
    return bool(wanted.items() <= pod.items())


def production_keeps_its_data(stack: Stack) -> Found:
    precious = [each for each in stack.objects if each.precious]
    if not stack.production or not precious:
        return
    if not any(each.protect for each in precious):
        told = "is production by its name and protects no data; write nanoclaw:protectData true"
        yield None, f"the stack {stack.name!r} {told}"
    for each in precious:
        if each.protect and each.retain is False:
            yield each, each.says("retain_on_delete", "is false; set it beside `protect`, as the program does")


def data_that_may_go(stack: Stack) -> Found:
    precious = [each for each in stack.objects if each.precious]
    if not any(each.protect for each in precious):
        return
    for each in precious:
        if not each.protect:
            told = "is not set; remove it from nanoclaw:settings.allowDataLoss once that is over"
            yield each, each.says("protect", told)
