#!/bin/sh
# Asks, and waits for the answer; when the gateway says 202, fetches the result from where it says.
# usage: invoke.sh TYPE [GATEWAY_URL] [FILE]     needs curl, and PENSTOCK_API_KEY
set -eu
type=${1:?usage: invoke.sh TYPE [GATEWAY_URL] [FILE]}
url=${2:-http://127.0.0.1:8080}
file=${3:-$(dirname "$0")/question.json}
: "${PENSTOCK_API_KEY:?set it to the key that the gateway has}"
answer=$(mktemp)
trap 'rm -f "$answer" "$answer.head"' EXIT

# The same key again gets the same outcome, so that a repeated request is not paid for twice.
id=${IDEMPOTENCY_KEY:-$(date +%s)-$$}
status=$(curl --silent --show-error --max-time 30 --output "$answer" --dump-header "$answer.head" \
  --write-out '%{http_code}' \
  --header "authorization: Bearer $PENSTOCK_API_KEY" \
  --header "content-type: application/json" \
  --header "ce-type: $type" \
  --header "idempotency-key: $id" \
  --data-binary "@$file" \
  "$url/v1/invoke")
echo "status $status" >&2

while [ "$status" = 202 ]; do
  place=${place:-$(sed -n 's/^[Ll]ocation: *\([^[:cntrl:]]*\).*/\1/p' "$answer.head")}
  case $place in /*) place=$url$place ;; esac
  # Waits up to 20 s for the outcome, and answers at once when it is there.
  status=$(curl --silent --show-error --max-time 30 --output "$answer" --write-out '%{http_code}' \
    --header "prefer: wait=20" "$place")
  echo "status $status" >&2
done
cat "$answer"
echo
[ "$status" = 200 ]
