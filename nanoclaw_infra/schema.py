"""The JSON Schema of a stack file, so that an editor shows a mistake while it is typed.

Made from the models that the program itself reads a stack with, and the one thing the reference page
is made from. Not here: rules between fields, which only the program knows; a file that fits the
schema may still be refused by `pulumi preview`, never the other way round.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, NoDefault
from pydantic_core import core_schema

from nanoclaw_infra.settings.base import FILLED_IN, IMAGE_PATTERN, OWN_KEYS
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import wire
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern, Platform

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SETTINGS: Final = "StackSettings"
"""The definition behind `nanoclaw:settings`."""

SECRET: Final = {
    "description": "Encrypted by `pulumi config set --secret`.",
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}

VARIABLE: Final = {"type": "string", "pattern": r"\$\{?\w+\}?"}
"""A text that is, or contains, a variable."""
_TAKES_VARIABLES: Final = (
    ("ControllerSettings", "image"),
    ("AgentSettings", "image"),
    ("ApiServer", "cidrs"),
    ("ApiServer", "ports"),
)
# What the stack `local` has from its surroundings, and a pattern or a number would refuse.


def stack_file_schema() -> dict[str, Any]:
    """The schema of stacks/Pulumi.<stack>.yaml."""
    definitions = _definitions()
    return {
        "$schema": DIALECT,
        "title": "A stack of NanoClaw on Kubernetes",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": {
                    "nanoclaw:platform": _default_of(Platform.KUBERNETES),
                    "nanoclaw:layout": _default_of(Layout.PER_TYPE),
                    "nanoclaw:protectData": {
                        "description": StackSettings.model_fields["protect_data"].description,
                        "enum": [True, False, "true", "false"],
                        "default": True,
                    },
                    "nanoclaw:settings": {
                        "description": "Everything else.",
                        "$ref": f"#/$defs/{SETTINGS}",
                    },
                    "nanoclaw:credentials": _credentials(),
                    "nanoclaw:apiToken": SECRET
                    | {"description": "Bearer token of the controller's API, encrypted; made once when left out."},
                },
                "patternProperties": {"^pulumi:": {}},
                "required": ["nanoclaw:settings"],
                "additionalProperties": False,
            },
            "encryptionsalt": {"type": "string"},
            "encryptedkey": {"type": "string"},
            "secretsprovider": {"type": "string"},
        },
        "required": ["config"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _default_of(member: Enum) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{type(member).__name__}", "default": member.value}


def _credentials() -> dict[str, Any]:
    keys = (*wire.SECRET_KEYS, *wire.CHANNEL_SECRET_KEYS)
    by_key = {"type": "object", "properties": dict.fromkeys(keys, SECRET), "additionalProperties": False}
    return {
        "description": "What agents get on stdin and what the controller keeps for its chat networks, encrypted.",
        "anyOf": [by_key, SECRET],
    }


def _definitions() -> dict[str, Any]:
    """Every model by its name, without what has a key of its own or is filled in."""
    whole = StackSettings.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions: dict[str, Any] = whole.pop("$defs")
    definitions[SETTINGS] = whole
    for *above, last in OWN_KEYS:
        del definitions["ControllerConfig" if above else SETTINGS]["properties"][last]
    for field in FILLED_IN:
        del definitions["ControllerConfig"]["properties"][field]
    whole["properties"]["groups"] = definitions["Groups"]["properties"]["groups"]
    definitions["AgentSettings"]["properties"]["image"]["pattern"] = IMAGE_PATTERN
    _without(definitions[Pattern.__name__], Pattern.DOCKER)
    for model, field in _TAKES_VARIABLES:
        _permit_variables(definitions[model]["properties"][field])
    used = _reached(definitions, SETTINGS) | {Layout.__name__, Platform.__name__}
    return {name: definitions[name] for name in sorted(used)}


def _without(enum: dict[str, Any], value: str) -> None:
    position = enum["enum"].index(value)
    del enum["enum"][position], enum["enumDescriptions"][position]


def _permit_variables(field: dict[str, Any]) -> None:
    """Let `field`, or the items of a list, be or contain `$NAME`."""
    inner = field["items"] if field["type"] == "array" else field
    described = {key: inner.pop(key) for key in ("description",) if key in inner}
    alternative = dict(inner)
    inner.clear()
    inner.update(described | {"anyOf": [alternative, VARIABLE]})


def _reached(definitions: dict[str, Any], start: str) -> set[str]:
    found, left = set[str](), [start]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += references(definitions[name])
    return found


def references(schema: Any) -> Iterable[str]:
    """The definitions a part of a schema names, in order."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        yield from itertools.chain.from_iterable(references(inner) for inner in schema.values())
    elif isinstance(schema, list):
        yield from itertools.chain.from_iterable(references(inner) for inner in schema)


class _Generator(GenerateJsonSchema):
    """Schemas for people: what a value means, no titles that repeat its name, no defaults that are whole models."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's hook)
        return False

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = schema["default_factory"]() if "default_factory" in schema else super().get_default_value(schema)  # type: ignore[call-arg]
        # An editor would paste a whole model, and null says no more than leaving it out.
        return NoDefault if default is None or isinstance(default, BaseModel) else default

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """`type: [string, "null"]` where that says it: validators then tell what is wrong, not that nothing fits."""
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return inner | {"type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return made | {"additionalProperties": False} if "patternProperties" in made else made

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        made = super().enum_schema(schema)
        meanings = _member_docstrings(schema["cls"])
        if not meanings:
            return made
        return made | {"enumDescriptions": [meanings.get(member.name, "") for member in schema["members"]]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """With the meaning of a field that a subclass only gives another default."""
        made = super().model_schema(schema)
        for model in schema["cls"].__mro__:
            for field in getattr(model, "__pydantic_fields__", {}).values():
                shown = made.get("properties", {}).get(field.alias)
                if shown is not None and field.description:
                    shown.setdefault("description", field.description)
        return made


def _member_docstrings(enum: type[Enum]) -> dict[str, str]:
    """Name of a member → the text below it, as pydantic has it for fields."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        member.targets[0].id: inspect.cleandoc(text.value.value)
        for member, text in itertools.pairwise(definition.body)
        if isinstance(member, ast.Assign)
        and isinstance(member.targets[0], ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def text() -> str:
    """The content of stacks/schema.json."""
    return json.dumps(stack_file_schema(), indent=2, ensure_ascii=False) + "\n"
