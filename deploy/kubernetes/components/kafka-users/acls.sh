#!/bin/sh
# Written by `python -m tests.deploy.kafka_acls` from docs/operations.md, "What each program may do".
#
#   BOOTSTRAP=host:port COMMAND_CONFIG=admin.properties sh acls.sh
#
# PREFIX is kafka.topic_prefix, APP_ID worker.app_id; USERS stands before each user's name. The users themselves are
# made with Kafka's own tools. PEOPLE is who types the other commands: USERS and the name of a program, such as
# PEOPLE=penstock-worker, where people work in its pods. Each output_topic of a route is to be allowed as results.v1.
set -eu
prefix=${PREFIX:-penstock} app_id=${APP_ID:-penstock} users=${USERS:-penstock-}
acl() {
  user=$1
  shift
  kafka-acls.sh --bootstrap-server "$BOOTSTRAP" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \
    --add --force --allow-principal "User:$user" "$@"
}

# topics
acl "${users}topics" --operation Create --resource-pattern-type prefixed \
  --topic "$prefix."
acl "${users}topics" --operation Describe --resource-pattern-type prefixed \
  --topic "$prefix."
acl "${users}topics" --operation DescribeConfigs --resource-pattern-type prefixed \
  --topic "$prefix."

# gateway
acl "${users}gateway" --operation Read --resource-pattern-type prefixed \
  --topic "$prefix.events."
acl "${users}gateway" --operation Read --resource-pattern-type literal \
  --topic "$prefix.results.v1" --topic "$prefix.deltas.v1" --topic "$prefix.replies.v1" --topic "$prefix.retries.v1" --topic "$prefix.handovers.v1"
acl "${users}gateway" --operation Write --resource-pattern-type prefixed \
  --topic "$prefix.events."
acl "${users}gateway" --operation Write --resource-pattern-type literal \
  --topic "$prefix.cancels.v1"
acl "${users}gateway" --operation Describe --resource-pattern-type literal \
  --group "penstock-gateway-reader" --group "$app_id"

# worker
acl "${users}worker" --operation Read --resource-pattern-type prefixed \
  --topic "$prefix.events."
acl "${users}worker" --operation Read --resource-pattern-type literal \
  --topic "$prefix.results.v1" --topic "$prefix.retries.v1" --topic "$prefix.cancels.v1" --topic "$prefix.handovers.v1"
acl "${users}worker" --operation Write --resource-pattern-type literal \
  --topic "$prefix.results.v1" --topic "$prefix.dead-letters.v1" --topic "$prefix.retries.v1" --topic "$prefix.deltas.v1" --topic "$prefix.replies.v1" --topic "$prefix.handovers.v1"
acl "${users}worker" --operation Read --resource-pattern-type literal \
  --group "$app_id"
acl "${users}worker" --operation Describe --resource-pattern-type literal \
  --group "$app_id-tail" --group "$app_id-recall" --group "penstock-worker-cancels"

# egress
acl "${users}egress" --operation Read --resource-pattern-type literal \
  --topic "$prefix.results.v1" --topic "$prefix.endpoints.v1"
acl "${users}egress" --operation Read --resource-pattern-type prefixed \
  --topic "$prefix.deliveries."
acl "${users}egress" --operation Write --resource-pattern-type prefixed \
  --topic "$prefix.deliveries."
acl "${users}egress" --operation Write --resource-pattern-type literal \
  --topic "$prefix.undelivered.v1" --topic "$prefix.endpoints.v1"
acl "${users}egress" --operation Read --resource-pattern-type prefixed \
  --group "$app_id.egress."
acl "${users}egress" --operation Describe --resource-pattern-type literal \
  --group "penstock-gateway-reader"

# ingress
acl "${users}ingress" --operation Write --resource-pattern-type prefixed \
  --topic "$prefix.events."
acl "${users}ingress" --operation Write --resource-pattern-type literal \
  --topic "$prefix.dead-letters.v1" --topic "$prefix.batch-jobs.v1"

# batch
acl "${users}batch" --operation Read --resource-pattern-type literal \
  --topic "$prefix.batch-jobs.v1" --topic "$prefix.events.bulk.v1" --topic "$prefix.handovers.v1" --topic "$prefix.results.v1"
acl "${users}batch" --operation Write --resource-pattern-type literal \
  --topic "$prefix.batch-jobs.v1" --topic "$prefix.events.bulk.v1" --topic "$prefix.handovers.v1"
acl "${users}batch" --operation Describe --resource-pattern-type literal \
  --group "penstock-batch-reader"
acl "${users}batch" --operation Write --resource-pattern-type literal \
  --transactional-id "*"
acl "${users}batch" --operation Describe --resource-pattern-type literal \
  --transactional-id "*"
acl "${users}batch" --operation DescribeConfigs --resource-pattern-type prefixed \
  --topic "$prefix."

# hand-over
acl "${users}hand-over" --operation Read --resource-pattern-type literal \
  --topic "$prefix.handovers.v1" --topic "$prefix.batch-jobs.v1" --topic "$prefix.results.v1" --topic "$prefix.retries.v1"
acl "${users}hand-over" --operation Write --resource-pattern-type literal \
  --topic "$prefix.results.v1" --topic "$prefix.retries.v1" --topic "$prefix.batch-jobs.v1"
acl "${users}hand-over" --operation Describe --resource-pattern-type literal \
  --group "penstock-batch-reader"
acl "${users}hand-over" --operation Write --resource-pattern-type literal \
  --transactional-id "$prefix.hand-over"
acl "${users}hand-over" --operation Describe --resource-pattern-type literal \
  --transactional-id "$prefix.hand-over"
acl "${users}hand-over" --operation DescribeConfigs --resource-pattern-type prefixed \
  --topic "$prefix."

# people
acl "${PEOPLE:-${users}people}" --operation Read --resource-pattern-type prefixed \
  --topic "$prefix."
acl "${PEOPLE:-${users}people}" --operation Write --resource-pattern-type prefixed \
  --topic "$prefix.events." --topic "$prefix.deliveries."
acl "${PEOPLE:-${users}people}" --operation Write --resource-pattern-type literal \
  --topic "$prefix.handovers.v1" --topic "$prefix.dead-letters.v1" --topic "$prefix.endpoints.v1"
acl "${PEOPLE:-${users}people}" --operation Describe --resource-pattern-type literal \
  --group "penstock-cli" --group "penstock-batch-reader" --group "$app_id"
acl "${PEOPLE:-${users}people}" --operation Write --resource-pattern-type literal \
  --transactional-id "$prefix.dead-letters.v1.resolve"
acl "${PEOPLE:-${users}people}" --operation Describe --resource-pattern-type literal \
  --transactional-id "$prefix.dead-letters.v1.resolve"
acl "${PEOPLE:-${users}people}" --operation DescribeConfigs --resource-pattern-type prefixed \
  --topic "$prefix."
