"""No secret and no ballast of a project folder reaches the agents."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from nanoclaw_runtime.contract.mounts import ALWAYS_BLOCKED
from nanoclaw_runtime.domain.project import wanted


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "src/index.ts",
        "src/data/countries.ts",
        "lib/store/memory.ts",
        "groups/main/CLAUDE.md",
        "container/skills/agent-browser/SKILL.md",
        "container/Dockerfile",
        "environment.ts",
        "docs/keyboard.md",
        "src/db.ts",
        "./package.json",
    ],
)
def test_the_project_s_own_files_are_wanted(path):
    assert wanted(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.production",
        "container/.env",
        ".ENV",
        "store",
        "store/messages.db",
        "Store/auth/creds.json",
        "./data/sessions/main/.claude/history.jsonl",
        "logs/nanoclaw.log",
        "groups/main/logs/container.log",
        ".git/config",
        "vendor/.git/config",
        "node_modules/x/index.js",
        "container/agent-runner/node_modules/x/index.js",
        "server.pem",
        "tls/Server.KEY",
        "id_rsa",
        "keys/id_ecdsa.pub",
        "tls/server.p12",
        "tls/server.key.bak",
        "backup/messages.db",
        "backup/messages.db-wal",
        "notes.SQLite3",
        "",
        ".",
        "/etc/passwd",
        "../other/file",
        "src/../../other",
        "a\0b",
    ],
)
def test_secrets_ballast_and_what_lies_elsewhere_are_not_wanted(path):
    assert not wanted(path)


@given(
    word=some.sampled_from(ALWAYS_BLOCKED),
    above=some.lists(some.sampled_from(["src", "groups", "x"]), max_size=3),
    before=some.sampled_from(["", "my"]),
    behind=some.sampled_from(["", ".bak", "/deep/file"]),
)
def test_what_no_mount_may_name_is_not_pushed_either(word, above, before, behind):
    assert not wanted("/".join([*above, before + word + behind]))
