"""A stack's settings as they are in its file, for whoever has no engine at hand.

The doctor, the schema's tests and the review of a preview read a stack this way; the program
itself is given its configuration by the engine. Encrypted values are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings

_PREFIX = "nanoclaw:"
_READ = ("platform", "layout", "protectData", "settings")


def stack_file(stack: str, project: Path) -> Path:
    """Where the file of a stack is, below the folder of `Pulumi.yaml`."""
    return project / "stacks" / f"Pulumi.{stack}.yaml"


def read_stack(stack: str, project: Path, environ: Mapping[str, str]) -> StackSettings:
    """The settings of a stack. Raises StackRefused with a sentence for every mistake, a missing file among them."""
    return StackSettings.read(stack, stack_values(stack, project), environ)


def stack_values(stack: str, project: Path) -> dict[str, Any]:
    """What `StackSettings.read` takes: the file's keys of ours, with the project's defaults. Raises StackRefused."""
    declared = _document(stack, project / "Pulumi.yaml").get("config", {})
    defaults = {key: entry["default"] for key, entry in declared.items() if "default" in entry}
    file = stack_file(stack, project)
    written = _document(stack, file).get("config", {})
    if not isinstance(written, dict):
        raise StackRefused(stack, [f"`config` of {file} is {written!r}; write a map"])
    ours = {key: value for key, value in written.items() if str(key).startswith(_PREFIX)}
    values = defaults | {key.removeprefix(_PREFIX): value for key, value in ours.items()}
    if isinstance(protect := values.get("protectData"), str):
        values["protectData"] = protect.lower() == "true"
    return {key: values[key] for key in _READ if key in values}


def _document(stack: str, file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(each.name[7:-5] for each in (file.parent).glob("Pulumi.*.yaml")))
        raise StackRefused(stack, [f"there is no file {file}; there are the stacks {known or '(none)'}"]) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StackRefused(stack, [f"{file} cannot be read ({' '.join(str(error).split())}); correct it"]) from None
    if not isinstance(document, dict):
        raise StackRefused(stack, [f"{file} is no map; write `config:` with the settings below it"])
    return document
