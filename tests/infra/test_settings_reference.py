"""The page of all settings and the schema of a stack file are what the models say today.

`NANOCLAW_GOLDEN=write pytest tests/infra` writes both anew.
"""

from __future__ import annotations

import os

import pytest
from jsonschema import Draft202012Validator

from nanoclaw_infra import reference, schema
from nanoclaw_infra.settings.base import FILLED_IN
from tests.infra.recording import CHECKOUT


@pytest.mark.parametrize(
    ("place", "made"), [(reference.PAGE, reference.page), (reference.SCHEMA, schema.text)], ids=["page", "schema"]
)
def test_what_is_committed_is_fresh(place, made):
    file = CHECKOUT / place
    if os.environ.get("NANOCLAW_GOLDEN") == "write":
        file.write_text(made(), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == made(), "run NANOCLAW_GOLDEN=write pytest tests/infra, and review"


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema.stack_file_schema())


def models():
    return {name: each for name, each in schema.stack_file_schema()["$defs"].items() if "properties" in each}


def test_every_field_says_what_it_is():
    told = set(schema.stack_file_schema()["$defs"])
    silent = [
        f"{name}.{field}"
        for name, model in models().items()
        for field, details in model["properties"].items()
        if "description" not in details and not told.intersection(schema.references(details))
    ]

    assert silent == []


def test_nothing_is_accepted_that_the_models_do_not_know():
    assert [name for name, model in models().items() if model["additionalProperties"] is not False] == []


def test_what_nobody_writes_is_not_offered():
    fields = models()["ControllerConfig"]["properties"].keys()

    assert fields.isdisjoint({*FILLED_IN, "platform", "layout"})
    assert "agent" in fields
    assert "protectData" not in models()[schema.SETTINGS]["properties"]
    assert "docker" not in schema.stack_file_schema()["$defs"]["Pattern"]["enum"]


def test_the_page_has_a_section_for_every_link():
    page = reference.page()
    headings = {reference.anchor(line.removeprefix("## ")) for line in page.splitlines() if line.startswith("## ")}
    links = {part.partition(")")[0] for part in page.split("](#")[1:]}

    assert links
    assert links <= headings
    assert len(headings) == page.count("\n## "), "no two sections share an address"
