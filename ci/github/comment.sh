#!/usr/bin/env bash
# One comment a stack: the one that begins with the same marker is edited, or a new one is made.
# Usage: comment.sh OWNER/REPOSITORY NUMBER FILE. Needs gh and GH_TOKEN with pull-requests: write.
set -euo pipefail

repository=$1 number=$2 file=$3
# Only our own comments count: whoever wrote another one could edit it behind us.
found=$(gh api --paginate "repos/$repository/issues/$number/comments?per_page=100" |
  jq --slurp --raw-output --arg marker "$(head -n 1 "$file")" --arg author "${COMMENT_AUTHOR:-github-actions[bot]}" \
    'add // [] | map(select(.user.login == $author and (.body | startswith($marker)))) | first | .id // empty')
if [[ -n $found ]]; then
  gh api --silent --method PATCH "repos/$repository/issues/comments/$found" --field "body=@$file"
else
  gh api --silent --method POST "repos/$repository/issues/$number/comments" --field "body=@$file"
fi
