"""A configuration that uses what the document can say."""

from pathlib import Path

from contracts.settings import Settings, load

RICH = """\
version: 1
kafka:
  bootstrap_servers: [one.example:9093, two.example:9093]
  security_protocol: SASL_SSL
  sasl_mechanism: SCRAM-SHA-512
  sasl_username: penstock
  sasl_password: env:KAFKA_PASSWORD
  topic_prefix: acme
sources:
  github:
    scheme: github
    secrets: [{id: current, value: "env:PENSTOCK_SECRET_GITHUB"}]
    type: com.github.{header:x-github-event}
    lane: bulk
  orders:
    scheme: standard-webhooks
    secrets: [{id: current, value: "env:PENSTOCK_SECRET_ORDERS"}]
    type: com.example.order
    ce_source: shop/orders
egress:
  queue: {kind: sqs, region: eu-central-1, queue_url: "https://sqs.eu-central-1.amazonaws.com/123456789012/results"}
providers:
  local: {kind: embedded}
models:
  default: {provider: local, model: embedded/extract-v1}
routes:
  - name: triage
    match: {source: github}
    prompt: {user: "{{ data }}"}
    output_schema:
      $schema: https://json-schema.org/draft/2020-12/schema
      $id: https://example.com/triage
      type: object
      properties: {labels: {type: array, items: {$ref: "#/$defs/label"}}}
      required: [labels]
      $defs: {label: {type: string, minLength: 2}}
    model: default
    output_topic: acme.triage.v1
  - name: rest
    prompt: {user: "{{ data }}"}
    model: default
"""


def rich(folder: Path) -> Settings:
    """Return the configuration as loaded from a file."""
    file = folder / "penstock.yaml"
    file.write_text(RICH, encoding="utf-8")
    return load(file, {})
