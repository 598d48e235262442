"""The page of all settings, docs/settings.md, from the schema of a stack file.

One section a model, in the order a reader meets them; `python -m nanoclaw_infra.reference` writes
the page and stacks/schema.json anew. Not here: meanings, which are the docstrings of the models.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nanoclaw_infra import schema
from nanoclaw_infra.settings.base import IMAGE_PATTERN
from nanoclaw_infra.settings.network import CIDR_PATTERN
from nanoclaw_runtime.contract import names, quantities

PAGE: Final = Path("docs/settings.md")
SCHEMA: Final = Path("stacks/schema.json")

_WORDS: Final = {
    IMAGE_PATTERN: "image",
    CIDR_PATTERN: "range of addresses",
    quantities.PATTERN: "quantity",
    names.FOLDER_PATTERN: "folder",
    names.OBJECT_PATTERN: "object's name",
}
_TYPES: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_BOUNDS: Final = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}

_HEAD: Final = """\
# Settings

<!-- Made by `python -m nanoclaw_infra.reference` from the docstrings of the models; change those, not this page. -->

What `stacks/Pulumi.<stack>.yaml` may say. A mistake stops `pulumi preview` with field, value and remedy; an editor with
a YAML language server shows it while you type, in a file that begins as this one does. The committed stacks are made
to be copied: `dev`, `production`, `openshift`, `warm` (agents wait for messages), `bridge` (no shared file system) and
`nodelocal` (disks of nodes).

```yaml
# yaml-language-server: $schema=schema.json
config:
  pulumi:disable-default-providers: [kubernetes]
  nanoclaw:settings:
    cluster: {kubeconfig: ~/.kube/config, context: development}
    controller: {image: registry.example/nanoclaw/runtime:0.1.0}
    runtime:
      agent: {image: registry.example/nanoclaw/agent:1.2.0}
    groups:
      - {folder: main, name: Main}
```

Fields in **bold** are required. Times are seconds. A quantity is written as in Kubernetes: `500m` CPU, `512Mi` bytes.
An image has a tag or a digest, exactly one. A folder has 1 to 64 letters, digits, `-` or `_`. `cluster.kubeconfig` may
hold `$VARIABLES`; in the stack `local` so may the images and the address of the API server.
"""


def page() -> str:
    """The content of docs/settings.md."""
    whole = schema.stack_file_schema()
    return _Page(whole["$defs"], whole["properties"]["config"]).text()


@dataclass
class _Section:
    """A model, and where in `nanoclaw:settings` it is."""

    model: str
    paths: list[str]

    @property
    def title(self) -> str:
        if len(self.paths) == 1:
            return f"`{self.paths[0]}`"
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.model).capitalize()


def anchor(heading: str) -> str:
    """The address of a heading, as code hosts make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


class _Page:
    """The definitions of the schema, and which of them has a section where."""

    def __init__(self, definitions: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._definitions, self._config = definitions, config
        self._sections = dict[str, _Section]()
        self._visit(config, "")

    def _visit(self, definition: Mapping[str, Any], path: str) -> None:
        """Give every definition below this one a section, in the order of their fields."""
        for name, field in definition.get("properties", {}).items():
            at = f"{path}.{name}".removeprefix("nanoclaw:settings.").removeprefix(".")
            for inner in dict.fromkeys(schema.references(field)):
                found = self._definitions[inner]
                below = at if "enum" in found else at + _several(field)
                if inner in self._sections:
                    self._sections[inner].paths.append(below)
                else:
                    self._sections[inner] = _Section(inner, [below])
                    self._visit(found, below)

    def text(self) -> str:
        """The whole page."""
        lines = [_HEAD, "## Keys of a stack file\n", *self._table(self._config), ""]
        for section in self._sections.values():
            definition = self._definitions[section.model]
            lines += [f"## {section.title}\n", f"{' '.join(definition['description'].split())}\n"]
            if len(section.paths) > 1:
                lines.append(f"At {', '.join(f'`{path}`' for path in section.paths)}.\n")
            lines += [*(self._table(definition) if "properties" in definition else _values(definition)), ""]
        return "\n".join(lines).rstrip() + "\n"

    def _table(self, definition: Mapping[str, Any]) -> Iterator[str]:
        yield "| field | type | default | meaning |"
        yield "|---|---|---|---|"
        for name, field in definition["properties"].items():
            shown = f"**`{name}`**" if name in definition.get("required", ()) else f"`{name}`"
            yield f"| {shown} | {self._type(field)} | {_default(field)} | {self._meaning(field)} |"

    def _type(self, field: Mapping[str, Any]) -> str:
        if "$ref" in field:
            name = field["$ref"].rpartition("/")[2]
            section, found = self._sections[name], self._definitions[name]
            shown = _choice(found["enum"]) if "enum" in found and len(section.paths) == 1 else section.title
            return f"[{shown}](#{anchor(section.title)})"
        if "anyOf" in field:
            kinds = [each for each in field["anyOf"] if each not in ({"type": "null"}, schema.VARIABLE)]
            return " or ".join(self._type(each) for each in kinds)
        if "enum" in field:
            return _choice(field["enum"])
        kind = field["type"][0] if isinstance(field["type"], list) else field["type"]
        if kind == "array":
            return f"list: {self._type(field['items'])}"
        return self._map(field) if kind == "object" else _scalar(kind, field)

    def _map(self, field: Mapping[str, Any]) -> str:
        if "properties" in field:
            names = [name for name in field["properties"] if name != "secure"]
            return f"map of {', '.join(f'`{name}`' for name in names)}" if names else "encrypted text"
        for pattern, inner in field.get("patternProperties", {}).items():
            return f"map: {_WORDS[pattern]} → {self._type(inner)}"
        keys = self._type(field["propertyNames"]) if "propertyNames" in field else "text"
        return f"map: {keys} → {self._type(field['additionalProperties'])}"

    def _meaning(self, field: Mapping[str, Any]) -> str:
        """Its own words, or those of the model it is."""
        inner = (self._definitions[name]["description"] for name in schema.references(field))
        return " ".join(str(field.get("description") or next(inner, "")).split()).replace("|", "\\|")


def _several(field: Mapping[str, Any]) -> str:
    """What stands behind the name of a list or a map where one of its members is meant."""
    if "items" in field or any("items" in each for each in field.get("anyOf", ())):
        return "[]"
    return ".*" if "additionalProperties" in field or "patternProperties" in field else ""


def _scalar(kind: str, field: Mapping[str, Any]) -> str:
    if (word := _WORDS.get(field.get("pattern", ""))) is not None:
        return word
    bounds = [f"{sign} {field[bound]}" for bound, sign in _BOUNDS.items() if bound in field]
    return f"{_TYPES[kind]} {', '.join(bounds)}".strip()


def _choice(values: Sequence[Any]) -> str:
    # A stack file has `true` as YAML's, and as text where the command line wrote it.
    *shown, last = [_value(value) for value in dict.fromkeys(map(_text, values))]
    return f"{', '.join(shown)} or {last}" if shown else last


def _values(enum: Mapping[str, Any]) -> Iterator[str]:
    for value, meaning in itertools.zip_longest(enum["enum"], enum.get("enumDescriptions", ())):
        yield f"- `{value}`: {' '.join(meaning.split())}" if meaning else f"- `{value}`"


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default", "")
    return "" if default in ("", [], {}) else _value(default)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(value: Any) -> str:
    return f"`{_text(value)}`"


def main() -> None:
    """Write both files, below the folder it is called in."""
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema.text(), encoding="utf-8")


if __name__ == "__main__":
    main()
