#!/usr/bin/env bash
# Preview the stack $1 and write the comment to the file $2. Ends with the status of nanoclaw-preview: 0 fine, 1 data at
# risk without permission, 2 no usable preview, also where the engine failed and did not say so in its JSON. The engine's own JSON holds the whole configuration and is never kept.
set -euo pipefail

stack=$1 comment=$2 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pulumi preview --stack "$stack" --json --non-interactive >"$work/preview.json" 2>"$work/preview.log" || failed=$?
.venv/bin/nanoclaw-preview "$work/preview.json" --stack "$stack" --log "$work/preview.log" --output "$comment"
if [[ $failed -ne 0 ]]; then
  printf '\n**The engine failed with status %s after all; its log says why.**\n' "$failed" >>"$comment"
  exit 2
fi
