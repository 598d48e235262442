"""What crosses the border between controller and agent container, exactly as NanoClaw v1 has it.

Input is one JSON object on stdin followed by EOF. Output is three lines on stdout: start
marker, one line of JSON, end marker. Follow-ups and requests are files below /workspace/ipc.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

OUTPUT_START: Final = "---NANOCLAW_OUTPUT_START---"
OUTPUT_END: Final = "---NANOCLAW_OUTPUT_END---"

INPUT_DIR: Final = "input"
MESSAGES_DIR: Final = "messages"
TASKS_DIR: Final = "tasks"
IPC_DIRS: Final = (MESSAGES_DIR, TASKS_DIR, INPUT_DIR)

CLOSE_FILE: Final = "_close"
"""Empty file in `input/`: finish the turn in flight, then exit 0."""
CURRENT_TASKS_FILE: Final = "current_tasks.json"
AVAILABLE_GROUPS_FILE: Final = "available_groups.json"

AGENT_POLL: Final = 0.5
"""Seconds between two looks of the agent into `input/`."""

BASE_URL_KEY: Final = "ANTHROPIC_BASE_URL"
SECRET_KEYS: Final = ("CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", BASE_URL_KEY)
"""Keys of the credentials Secret that are passed on to agents, in `ContainerInput.secrets`."""

MODEL_KEYS: Final = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN")
"""Those of `SECRET_KEYS` that open the model's API; the gateway needs one."""

TELEGRAM_TOKEN_KEY: Final = "TELEGRAM_BOT_TOKEN"  # noqa: S105
CHANNEL_SECRET_KEYS: Final = (TELEGRAM_TOKEN_KEY,)
"""Keys of the credentials Secret that the controller keeps for itself."""

MODEL_HOST: Final = "api.anthropic.com"
"""Where agents find the model, unless ANTHROPIC_BASE_URL says otherwise."""

QUIET_ENV: Final = {
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
"""Keeps an agent from waiting for hosts a closed network hides: 8 s of its start, measured with NanoClaw's image."""

PARKED_FILE: Final = "/tmp/input.json"  # noqa: S108
"""There while an agent has compiled and waits for its input, and gone when it has read it."""
COMPILED_FILE: Final = "/tmp/dist/node_modules"  # noqa: S108
"""There when an agent has compiled, for good."""

AGENT_HOME: Final = "/home/node"
"""HOME of the agent; must be set, and writable, for any uid."""


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class ContainerInput(_Wire):
    """The one JSON object an agent reads from stdin."""

    prompt: str
    session_id: str | None = None
    group_folder: str
    chat_jid: str
    is_main: bool
    is_scheduled_task: bool | None = None
    assistant_name: str | None = None
    secrets: dict[str, str] | None = Field(default=None, repr=False)

    def encode(self) -> bytes:
        """UTF-8 JSON without the fields that are not set; the caller closes stdin behind it."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class OutputStatus(StrEnum):
    SUCCESS = "success"
    ERROR = "error"


class ContainerOutput(_Wire):
    """The JSON between two markers. `success` does not mean that the turn worked."""

    status: OutputStatus
    result: str | None = None
    new_session_id: str | None = None
    error: str | None = None


class FollowUp(_Wire):
    """A file in `input/`: one more message for the agent that is running."""

    type: Literal["message"] = "message"
    text: str

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


def input_file(milliseconds: int, suffix: str) -> str:
    """Name of a follow-up; agents take them in name order. `suffix` is four characters of base 36."""
    return f"{milliseconds}-{suffix}.json"
