"""What the admission rules look at, as CEL, the language in which the API server evaluates them.

Names, labels and places come from the contract: where that changes, the rules change with it. Each function gives the
text of an expression. Not here: which rules there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.contract.layout import agent_mounts

GROUP: Final = "variables.group"
FOLDER: Final = "variables.folder"

_SAMPLE: Final = "sample"
# A folder that is its own slug: in what the contract makes of it, whatever depends on the group is found by it.


def text(value: str) -> str:
    """A string, quoted."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def listed(values: Iterable[str]) -> str:
    """A list of strings; an empty one gets an entry that nothing is called, because it must have a type."""
    return f"[{', '.join(text(value) for value in values) or text('')}]"


def entry(metadata: str, field: str, key: str) -> str:
    """The value of a label or an annotation, empty when it is missing."""
    return f"{metadata}.?{field}[?{text(key)}].orValue('')"


def marked(metadata: str) -> str:
    """Whether these metadata have labels that only agents have."""
    prefixed = f"{metadata}.?labels.orValue({{}}).exists(key, key.startsWith({text(labels.PREFIX)}))"
    selected = " && ".join(
        f"{entry(metadata, 'labels', key)} == {text(labels.component(labels.AGENT)[key])}"
        for key in (labels.NAME, labels.COMPONENT)
    )
    return f"({prefixed} || ({selected}))"


def runs_as_agent(pod: str) -> str:
    """Whether a pod's spec names the agents' account."""
    return f"{pod}.?serviceAccountName.orValue('') == {text(names.AGENT_ACCOUNT)}"


def unchanged(field: str) -> str:
    """Whether the object's labels or annotations that are ours are as they were."""
    ours = f"(key.startsWith({text(labels.PREFIX)}) || key in {listed((labels.NAME, labels.COMPONENT))})"
    old, new = (f"{side}.metadata.?{field}.orValue({{}})" for side in ("oldObject", "object"))
    return (
        f"{new}.all(key, !{ours} || {old}[?key].orValue('') == {new}[key]) && {old}.all(key, !{ours} || key in {new})"
    )


def own_claims(layout: Layout, transport: Transport = Transport.VOLUME) -> str:
    """The claims of the pod's group, and those of the installation that it sees; with the bridge it sees none."""
    own = [_with(claim, GROUP) for claim in dict.fromkeys(_claim_of(place) for place in _own(layout, _SAMPLE))]
    if transport is Transport.BRIDGE:
        return f"[{', '.join(own)}]"
    shared = {folder: _claim_of(_shared(layout, folder)) for folder in (names.MAIN_FOLDER, _SAMPLE)}
    return f"[{', '.join([*own, _by_role(shared)])}]"


def own_places(layout: Layout) -> str:
    """The claims and folders of claims that are the group's alone, each ending in a slash."""
    return f"[{', '.join(_place(place) for place in _own(layout, _SAMPLE))}]"


def shared_place(layout: Layout) -> str:
    """What the group sees of the installation, to read it: the project, or the memory of all groups."""
    return _by_role({folder: _shared(layout, folder) for folder in (names.MAIN_FOLDER, _SAMPLE)})


def folders_by_volume(root: str) -> str:
    """Volume → the folder of a node below `root` that it is, for all that a group's pods see there."""
    of_node = {
        _claim_of(place): folder.rstrip("/")
        for place, (_, _, folder) in zip(
            _own(Layout.PER_TYPE, _SAMPLE), (each.partition("/") for each in _own(Layout.SHARED, _SAMPLE)), strict=True
        )
    }
    own = [f"{_with(volume, GROUP)}: {_with(f'{root}/{folder}', FOLDER)}" for volume, folder in of_node.items()]
    volume, folder = (
        _by_role({each: part(_shared(layout, each)) for each in (names.MAIN_FOLDER, _SAMPLE)})
        for layout, part in (
            (Layout.PER_TYPE, _claim_of),
            (Layout.SHARED, lambda place: f"{root}/{place.partition('/')[2].rstrip('/')}"),
        )
    )
    return f"{{{', '.join([*own, f'{volume}: {folder}'])}}}"


def _own(layout: Layout, folder: str) -> list[str]:
    places = [place for place, read_only in _places(layout, folder) if not read_only]
    return [place for place in places if not any(place != other and place.startswith(other) for other in places)]


def _shared(layout: Layout, folder: str) -> str:
    (place,) = (place for place, read_only in _places(layout, folder) if read_only)
    return place


def _places(layout: Layout, folder: str) -> list[tuple[str, bool]]:
    mounts = agent_mounts(layout, folder, session="any")
    return [
        (f"{mount.claim}/{mount.sub_path}/" if mount.sub_path else f"{mount.claim}/", mount.read_only)
        for mount in mounts
    ]


def _claim_of(place: str) -> str:
    return place.partition("/")[0]


def _place(place: str) -> str:
    claim, slash, folder = place.partition("/")
    return f"{_with(claim + slash, GROUP)} + {_with(folder, FOLDER)}" if folder else _with(place, GROUP)


def _with(sample: str, variable: str) -> str:
    """`sample` with the variable in the place of the sample's folder."""
    before, found, after = sample.partition(_SAMPLE)
    return " + ".join([text(before), *([variable] if found else []), *([text(after)] if after else [])])


def _by_role(values: dict[str, str]) -> str:
    main, other = values[names.MAIN_FOLDER], values[_SAMPLE]
    return f"({GROUP} == {text(names.slug(names.MAIN_FOLDER))} ? {text(main)} : {text(other)})"
