#!/usr/bin/env bash
# One note a stack: the one that begins with the same marker is edited, or a new one is made.
# Usage: comment.sh FILE, in a merge request's pipeline. Needs curl, jq, and GITLAB_TOKEN: a project access token with
# scope `api` and role Reporter, because a job's own token may not write notes.
set -euo pipefail

file=$1
notes="$CI_API_V4_URL/projects/$CI_PROJECT_ID/merge_requests/$CI_MERGE_REQUEST_IID/notes"

# The token comes from a file descriptor: arguments can be read by every process of the machine.
api() { curl --silent --show-error --fail --header @<(printf 'PRIVATE-TOKEN: %s\n' "$GITLAB_TOKEN") "$@"; }

# Only our own notes count: whoever wrote another one could edit it behind us.
author=$(api "$CI_API_V4_URL/user" | jq .id)
found='' page=1
while [[ -z $found ]]; do
  batch=$(api "$notes?per_page=100&page=$page")
  [[ $(jq length <<<"$batch") -gt 0 ]] || break
  found=$(jq --raw-output --arg marker "$(head -n 1 "$file")" --argjson author "$author" \
    'map(select(.author.id == $author and (.body | startswith($marker)))) | first | .id // empty' <<<"$batch")
  page=$((page + 1))
done
if [[ -n $found ]]; then
  api --output /dev/null --request PUT --data-urlencode "body@$file" "$notes/$found"
else
  api --output /dev/null --request POST --data-urlencode "body@$file" "$notes"
fi
