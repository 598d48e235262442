"""What is in the cluster and not what the stack last put there, whoever changed it.

The engine's own drift check (`pulumi refresh --preview-only`) looks at the fields it owns. A field
somebody else wrote over, with `kubectl edit` for one, is theirs from then on: the provider neither
tells nor repairs it, be it a wider Role. So this compares every field of the stack's state with the
cluster, and names what others put beside them. Not here: repairing; the remedy is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from nanoclaw_runtime.contract import quantities

NO_DRIFT, CANNOT_TELL, DRIFT = 0, 2, 7
"""Exit codes; the last is the engine's own for an unexpected change."""

_SECRET: Final = "4dabf18193072939515e22adb298388d"  # noqa: S105
# The engine's mark of an encrypted value.
_EXTENDED: Final = frozenset({"volumes", "volumeMounts"})
# Lists to which the controller adds what belongs to groups registered at run time.
_SYSTEM: Final = ("kube-", "kubelet", "nanoclaw-registration", "cluster-autoscaler", "vpa-")
# Who may write beside us. Whoever is not among them is told.
_KEPT: Final = frozenset({"Namespace", "PersistentVolumeClaim"})

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Drift:
    """One field that is not as the stack has it."""

    kind: str
    name: str
    namespace: str
    field: str
    wanted: str
    found: str
    by: str = ""
    """Who wrote it last, as the API server knows."""

    def line(self) -> str:
        who = f", written by {self.by}" if self.by else ""
        return f"{self.kind} {self.name}: {self.field} is {self.found}, the stack has {self.wanted}{who}"

    def remedy(self, stack: str) -> str:
        if self.kind in _KEPT:
            return f"change {self.kind} {self.name} back by hand; replacing it would cost what it holds"
        # Replacing it in the engine would be an apply, which conflicts with whoever owns the field now.
        where = f" -n {self.namespace}" if self.namespace else ""
        return f"kubectl delete {self.kind.lower()} {self.name}{where} && pulumi up --refresh --stack {stack}"


def drift_of(resource: Object, live: Object | None) -> list[Drift]:
    """How an object of the cluster differs from what the state of the stack says about it."""
    wanted = resource["inputs"]
    namespace, _, name = resource["id"].rpartition("/")
    about = (wanted["kind"], name, namespace)
    if live is None:
        return [Drift(*about, "the object", "there", "missing")]
    owners = dict(_foreign(live))
    found = [
        Drift(*about, field, stack, cluster, owners.get(field, ""))
        for field, stack, cluster in _differences(wanted, live, "")
    ]
    told = {each.field for each in found}
    beside = [
        Drift(*about, field, "nothing of it", "there", by=manager)
        for field, manager in owners.items()
        if not any(_touches(field, other) for other in told) and _at(wanted, field) is None
    ]
    return found + beside


def _differences(wanted: Any, found: Any, field: str) -> Iterator[tuple[str, str, str]]:
    """(field, wanted, found) of each leaf that differs; what the cluster added by itself is none."""
    if isinstance(wanted, Mapping):
        if _SECRET in wanted:
            return
        if not isinstance(found, Mapping):
            yield field, _short(wanted), _short(found)
            return
        for key, value in wanted.items():
            if key != "stringData":  # write-only: the cluster has it as data
                yield from _differences(value, found.get(key), f"{field}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(found, list):
        yield from _of_lists(wanted, found, field)
    elif not _same(wanted, found):
        yield field, _short(wanted), _short(found)


def _of_lists(wanted: Sequence[Any], found: Sequence[Any], field: str) -> Iterator[tuple[str, str, str]]:
    # A volume is mounted more than once where groups share a claim, so the place goes before the name.
    key = next(
        (key for key in ("mountPath", "name") if wanted and isinstance(wanted[0], dict) and key in wanted[0]), ""
    )
    if not key:
        if len(wanted) != len(found):
            yield field, f"{len(wanted)} entries", f"{len(found)} entries"
        for position, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from _differences(one, other, f"{field}[{position}]")
        return
    known = {each.get(key): each for each in found if isinstance(each, dict)}
    for each in wanted:
        yield from _differences(each, known.get(each[key]), f"{field}[{each[key]}]")
    more = sorted(str(name) for name in known.keys() - {each[key] for each in wanted})
    if more and field.rpartition(".")[2] not in _EXTENDED:
        yield field, f"{len(wanted)} entries", f"{len(found)} entries, with {', '.join(more)}"


def _same(wanted: Any, found: Any) -> bool:
    if wanted == found:
        return True
    try:
        return quantities.parse(str(wanted)) == quantities.parse(str(found))
    except ValueError:
        return False


def _foreign(live: Object) -> Iterator[tuple[str, str]]:
    """(field, manager) of what somebody but the engine and the cluster wrote outside the metadata."""
    for entry in live["metadata"].get("managedFields", ()):
        manager = entry.get("manager", "")
        if entry.get("subresource") or manager.startswith(("pulumi-kubernetes", *_SYSTEM)):
            continue
        for field in _fields(entry.get("fieldsV1", {}), ""):
            if not field.startswith(("metadata", "status")):
                yield field, f"{manager} at {entry.get('time', 'some time')}"


def _fields(tree: Object, path: str) -> Iterator[str]:
    """The leaves of a `fieldsV1` tree, as dotted paths; elements of lists by their key."""
    inner = {key: value for key, value in tree.items() if key != "."}
    if not inner and path:
        yield path
    for key, value in inner.items():
        if key.startswith("f:"):
            yield from _fields(value, f"{path}.{key[2:]}".lstrip("."))
        else:
            element = json.loads(key[2:]) if key.startswith("k:") else key[2:]
            name = element.get("name", element.get("mountPath", key[2:])) if isinstance(element, dict) else element
            yield from _fields(value, f"{path}[{name}]")


def _touches(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _at(tree: Any, field: str) -> Any:
    """What the stack says of a plain path; something when the path leads into a list, which was compared before."""
    if "[" in field:
        return None if field.rpartition("]")[2] else tree
    for key in field.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _short(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:79]}…"


def drift(state: Object) -> list[Drift]:
    """The drift of everything in an exported state. Raises LookupError where the state names no cluster."""
    from kubernetes import client, config, dynamic  # noqa: PLC0415  (a second to load, and not needed for `--help`)

    resources = [each for each in state["deployment"].get("resources", ()) if not each.get("delete")]
    provider = next(each["inputs"] for each in resources if each["type"] == "pulumi:providers:kubernetes")
    found: list[Drift] = []
    path = str(Path(provider["kubeconfig"]).expanduser())
    with config.new_client_from_config(path, provider.get("context")) as api:  # type: ignore[no-untyped-call]
        cluster = dynamic.DynamicClient(api)  # type: ignore[no-untyped-call]
        for resource in resources:
            if resource["type"].startswith("kubernetes:"):
                found += drift_of(resource, _live(cluster, resource, client.ApiException))
    return found


def _live(cluster: Any, resource: Object, failure: type[Exception]) -> Object | None:
    inputs = resource["inputs"]
    kind = cluster.resources.get(api_version=inputs["apiVersion"], kind=inputs["kind"])
    namespace, _, name = resource["id"].rpartition("/")
    try:
        answer: Object = cluster.get(kind, name=name, namespace=namespace or None).to_dict()
    except failure as error:
        if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
            return None
        raise
    return answer


class StateUnusable(Exception):
    """What was piped in is no state of a stack that is up."""


def read_state(file: Path | None) -> tuple[str, Object]:
    """The stack's name and its exported state, from a file or standard input. Raises StateUnusable."""
    try:
        state = json.loads(sys.stdin.read() if file is None else file.read_bytes())
        return state["deployment"]["resources"][0]["urn"].split(":")[2], state
    except OSError as error:
        raise StateUnusable(f"{file} cannot be read ({error.strerror}); name an exported state") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateUnusable(
            "this is no state of a stack that is up; pipe in what `pulumi stack export` prints"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the drift of the exported state on stdin, or in a file; exit code 7 when there is some."""
    parser = argparse.ArgumentParser(
        prog="nanoclaw-drift",
        description="What is in the cluster and not what the stack last put there, whoever changed it.",
        epilog="Exit codes: 0 no drift, 7 drift, 2 it cannot be told. Example: pulumi stack export | nanoclaw-drift",
    )
    parser.add_argument("state", nargs="?", type=Path, help="an exported state; standard input when left out")
    try:
        stack, state = read_state(parser.parse_args(arguments).state)
        found = drift(state)
    except StateUnusable as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_TELL
    except Exception as error:  # noqa: BLE001  (whatever keeps us from the cluster, the answer is the same)
        reason = " ".join(str(error).split())[:300]
        sys.stderr.write(f"the cluster cannot be compared: {reason}; check the kubeconfig of the stack\n")
        return CANNOT_TELL
    lines = [each.line() for each in found] or ["no drift: the cluster has what the stack last put there"]
    lines += [f"  → {remedy}" for remedy in dict.fromkeys(each.remedy(stack) for each in found)]
    sys.stdout.write("\n".join(lines) + "\n")
    return DRIFT if found else NO_DRIFT


if __name__ == "__main__":
    sys.exit(main())
