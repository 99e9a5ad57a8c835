"""Makes a source's verifier; the one place that knows which scheme is verified by what."""

from collections.abc import Sequence

from contracts.settings import SourceSettings
from contracts.settings.signing import TwilioSettings
from contracts.settings.sources import KeyHeader
from gateways.ingress.api_keys import KeyVerifier
from gateways.ingress.client_states import ClientStateVerifier
from gateways.ingress.keys import Key
from gateways.ingress.schemes import scheme_of
from gateways.ingress.signatures import SignatureVerifier
from gateways.ingress.twilio import TwilioVerifier
from gateways.ingress.verifying import Verifier


def build_verifier(name: str, source: SourceSettings, keys: Sequence[Key]) -> Verifier:
    """Return the verifier of a source, with these keys.

    Raises:
        ConfigError: a template cannot be used; names the source.
    """
    url = source.public_url
    if source.scheme == "api-key":
        return KeyVerifier(source.key_header or KeyHeader(), keys)
    if source.scheme == "microsoft-graph":
        return ClientStateVerifier(keys)
    if source.client_certificate is not None:
        from gateways.ingress.client_certificates import ClientCertificateVerifier

        return ClientCertificateVerifier(source.client_certificate, keys)
    if source.http_signature is not None and url is not None:
        # Its library is loaded where it is used: a Lambda function's cold start is somebody's wait.
        from gateways.ingress.http_signatures import HttpSignatureVerifier

        return HttpSignatureVerifier(source.http_signature, url, keys, source.tolerance_s)
    if source.scheme == "twilio" and url is not None:
        return TwilioVerifier(source.twilio or TwilioSettings(), url, keys)
    where = f"sources.{name}.{'public_key' if source.public_key else 'hmac'}"
    return SignatureVerifier(scheme_of(source), keys, url, where)
