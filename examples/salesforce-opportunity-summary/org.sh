#!/bin/sh
# Talks to an org over its REST API, as an integration user: log in, then create an opportunity or show its summary.
# usage: org.sh create [NAME]      prints the new opportunity's id
#        org.sh show ID            prints the fields that Penstock writes; exit code 1 while they are empty
# needs: curl, and in the environment SALESFORCE_URL, SALESFORCE_CONSUMER_SECRET; for the stub also CURL_CA_BUNDLE
set -eu
: "${SALESFORCE_URL:?set it to the org, https://...}" "${SALESFORCE_CONSUMER_SECRET:?set it to the secret of its app}"
api=$SALESFORCE_URL/services/data/v62.0/sobjects/Opportunity
ask() { curl --silent --show-error --fail-with-body --max-time 15 "$@"; }
word() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

# The secret stands on curl's standard input, where no other process sees it.
token=$(printf 'grant_type=client_credentials&client_id=%s&client_secret=%s' \
  "${SALESFORCE_CONSUMER_KEY:-stub-consumer-key}" "$SALESFORCE_CONSUMER_SECRET" |
  ask --data @- "$SALESFORCE_URL/services/oauth2/token" | word access_token)

case ${1:-} in
  create)
    name=${2:-Northwind Logistics - Fleet telemetry, 200 seats}
    ask --header "Authorization: Bearer $token" --header "Content-Type: application/json" --data @- "$api" <<END | word id
{"Name": "$name", "StageName": "Prospecting", "Amount": 48000, "CloseDate": "2026-12-18",
 "NextStep": "Technical workshop",
 "Description": "Inbound request after the trade fair in Antwerp. They want live alerts for 200 refrigerated trucks."}
END
    ;;
  show)
    fields=Penstock_Summary__c,Penstock_Key_Facts__c,Penstock_Model__c,Penstock_Result__c
    shown=$(ask --header "Authorization: Bearer $token" "$api/${2:?which opportunity?}?fields=$fields")
    printf '%s\n' "$shown"
    [ -n "$(printf '%s' "$shown" | word Penstock_Result__c)" ]
    ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
