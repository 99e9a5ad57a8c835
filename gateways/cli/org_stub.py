"""`penstock org-stub`: a stand-in for a Salesforce org. Blocking: until Ctrl-C."""

import asyncio
import tempfile
from pathlib import Path
from typing import BinaryIO

import click

from contracts.errors import ConfigError
from contracts.settings import SecretRef
from gateways.cli.dlq_filters import Finite
from gateways.cli.send import http_url
from gateways.orgstub import certificates
from gateways.orgstub.callout import Callouts
from gateways.orgstub.knobs import Knobs
from gateways.orgstub.oauth import App
from gateways.orgstub.org import Org
from gateways.orgstub.server import serve, tls_of


@click.command("org-stub")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port; 0 = any free one, printed at start.")
@click.option("--tls-folder", type=click.Path(path_type=Path, file_okay=False), help="Where its certificates go.")
@click.option("--consumer-key", default="stub-consumer-key", show_default=True, help="Consumer key of its app.")
@click.option("--consumer-secret", default="", metavar="REF", help="env:NAME or file:PATH; a known one when absent.")
@click.option("--certificate", type=click.File("rb"), help="PEM of the public key that verifies JWT assertions.")
@click.option("--callout-url", metavar="URL", callback=http_url,
              help="Gateway that is told of new opportunities, as by the Apex sample.")  # fmt: skip
@click.option("--callout-secret", metavar="REF", help="env:NAME or file:PATH of the webhook secret.")
@click.option("--callout-wait-scale", default=1.0, type=Finite(0), show_default=True,
              help="Factor for the waits between its tries.")  # fmt: skip
@click.option("--latency", default=0.0, type=Finite(0), metavar="S", help="Time of every call of its API, seconds.")
def org_stub(
    *,
    host: str,
    port: int,
    tls_folder: Path | None,
    consumer_key: str,
    consumer_secret: str,
    certificate: BinaryIO | None,
    callout_url: str | None,
    callout_secret: str | None,
    callout_wait_scale: float,
    latency: float,
) -> None:
    """Run a stand-in for a Salesforce org, for tests and a first look: it is not Salesforce.

    OAuth 2.0 (client credentials, JWT bearer), Opportunity records over the REST API, limits and error bodies as
    Salesforce has them; `PATCH /_stub/knobs` makes it fail, `GET /_stub/records` shows every write. Memory only.

    \b
    Example:
      penstock org-stub --port 9443 --tls-folder build/org
      curl --cacert build/org/ca.pem https://127.0.0.1:9443/_stub/records
    """  # noqa: D301 - click's \b
    secret = _secret(consumer_secret, "--consumer-secret") if consumer_secret else b"stub-consumer-secret"
    public_key = _text(certificate.read(), "--certificate") if certificate else ""
    app = App(consumer_key, _text(secret, "--consumer-secret"), public_key)
    if (callout_url is None) != (callout_secret is None):
        message = "--callout-url and --callout-secret belong together"
        raise click.UsageError(message)
    hook = _secret(callout_secret, "--callout-secret") if callout_secret else b""
    callouts = Callouts(callout_url, hook, callout_wait_scale) if callout_url else None
    org = Org(app, Knobs(latency_s=latency), callouts.enqueue if callouts else None)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            place = tls_folder or Path(temporary)
            click.echo(f"certificate authority: {certificates.make(place)}")
            asyncio.run(serve(org, host, port, tls_of(place), callouts))
        except (OSError, UnicodeError) as error:
            # UnicodeError: a host that no resolver takes.
            message = f"org-stub cannot start: {error}"
            raise click.ClickException(message) from error


def _secret(reference: str, option: str) -> bytes:
    try:
        return SecretRef(reference).resolve()
    except (ValueError, ConfigError) as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _text(content: bytes, option: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = "is no text"
        raise click.BadParameter(message, param_hint=option) from error
