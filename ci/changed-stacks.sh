#!/usr/bin/env bash
# The stacks a change concerns, as a JSON list: those whose file changed since the commit $1, and all of them when
# anything else did that the program could read, or when no commit is given. Names other than letters, digits, '_', '.' and '-' are left out: they end
# in commands.
set -euo pipefail

# A list of what cannot matter: a module beside the program would be imported instead of a library, whatever its name.
beside='^$|^(docs|tests|bench|stacks)/|\.md$|^LICENSE$|^runtime/nanoclaw_runtime/[^/]+/'
program='^runtime/nanoclaw_runtime/contract/'
files=$(git ls-files 'stacks/Pulumi.*.yaml')
if [[ $# -gt 0 ]]; then
  changed=$(git diff --name-only --no-renames "$1"...HEAD)
  if ! grep -qE "$program" <<<"$changed" && ! grep -qvE "$beside" <<<"$changed"; then
    files=$(grep -Fxf <(printf '%s\n' "$files") <<<"$changed" || true)
  fi
fi
# The stack `local` is the cluster of `make up` on somebody's machine.
sed -nE 's|^stacks/Pulumi\.([A-Za-z0-9_.-]+)\.yaml$|\1|p' <<<"$files" | { grep -vx local || true; } |
  jq --raw-input --slurp --compact-output 'split("\n") | map(select(. != ""))'
