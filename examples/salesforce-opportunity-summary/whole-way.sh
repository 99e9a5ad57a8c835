#!/bin/sh
# From the opportunity to the summary on it, with a stand-in for the org; ends by itself, and ends what it started.
# usage: whole-way.sh [GATEWAY_URL]     beside a running `penstock up` with this example's penstock.yaml
# needs: penstock on the PATH, curl, and PENSTOCK_SECRET_SALESFORCE
set -eu
gateway=${1:-http://127.0.0.1:8080}
here=$(dirname "$0")
work=$(mktemp -d)
export SALESFORCE_CONSUMER_SECRET=stub-consumer-secret CURL_CA_BUNDLE="$work/ca.pem"
pids=
finish() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

wait_for() { # FILE TEXT
  tries=0
  until grep -q "$2" "$1" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "no '$2' in:" >&2; cat "$1" >&2; exit 1; }
    sleep 0.1
  done
}

# The org: as the Apex class does, it posts a signed event for every new opportunity to the gateway.
penstock org-stub --tls-folder "$work" --callout-url "$gateway" \
  --callout-secret env:PENSTOCK_SECRET_SALESFORCE >"$work/org.log" 2>&1 &
pids="$pids $!"
wait_for "$work/org.log" "listening on"
SALESFORCE_URL=$(sed -n 's/^listening on //p' "$work/org.log")
export SALESFORCE_URL
echo "org       $SALESFORCE_URL (a stand-in, in memory)"

# The door back: the summaries go onto the opportunities of that org. Its Kafka is that of the running `penstock up`.
kafka=$(sed -n 's/.*"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": "\([^"]*\)".*/\1/p' build/up.json 2>/dev/null || true)
PENSTOCK_KAFKA__BOOTSTRAP_SERVERS=${PENSTOCK_KAFKA__BOOTSTRAP_SERVERS:-${kafka:-localhost:9092}} \
  PENSTOCK_EGRESS__OPPORTUNITIES__LOGIN__URL=$SALESFORCE_URL \
  PENSTOCK_EGRESS__OPPORTUNITIES__CA_FILE=$CURL_CA_BUNDLE PENSTOCK_EGRESS_PROCESS__HEALTH_PORT=0 \
  penstock egress --config "$here/penstock.yaml" >"$work/egress.log" 2>&1 &
pids="$pids $!"
wait_for "$work/egress.log" "delivering opportunities"

id=$("$here/org.sh" create)
echo "created   $id"
tries=0
until "$here/org.sh" show "$id" >"$work/shown"; do
  tries=$((tries + 1))
  [ "$tries" -lt 60 ] || { echo "no summary within a minute" >&2; cat "$work/egress.log" >&2; exit 1; }
  sleep 1
done
printf 'shows     %s\n' "$(cat "$work/shown")"
