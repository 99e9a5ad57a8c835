#!/bin/sh
# Signs a file as the Apex class does, and posts it: HMAC-SHA256 over "<unix seconds>.<body>", in hex.
# usage: send-sample.sh [GATEWAY_URL] [FILE]     needs openssl, curl, and PENSTOCK_SECRET_SALESFORCE
set -eu
url=${1:-http://127.0.0.1:8080}
file=${2:-$(dirname "$0")/sample-event.json}
: "${PENSTOCK_SECRET_SALESFORCE:?set it to the secret that the gateway has}"

timestamp=$(date +%s)
# The key stands on openssl's command line, where others on this machine can see it: for samples, not for real secrets.
signature=$({ printf '%s.' "$timestamp"; cat "$file"; } |
  openssl dgst -sha256 -hmac "$PENSTOCK_SECRET_SALESFORCE" | sed 's/^.*= *//')

curl --silent --show-error --fail-with-body --max-time 15 \
  --header "content-type: application/json" \
  --header "x-salesforce-timestamp: $timestamp" \
  --header "x-salesforce-signature: $signature" \
  --data-binary "@$file" \
  "$url/webhooks/salesforce"
echo
