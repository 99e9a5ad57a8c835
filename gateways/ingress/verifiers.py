"""Makes a source's verifier; the one place that knows which scheme is verified by what.

Blocking: `resolve_keys` reads the files that secrets refer to.
"""

from collections.abc import Sequence

from contracts.settings import SourceSettings
from contracts.settings.sources import KeyHeader
from gateways.ingress.api_keys import KeyVerifier
from gateways.ingress.keys import Key, resolve_keys
from gateways.ingress.schemes import scheme_of
from gateways.ingress.signatures import HmacVerifier
from gateways.ingress.verifying import Verifier


def make_verifier(name: str, source: SourceSettings) -> Verifier:
    """Return the verifier of a source, with the keys that its secrets have now.

    Raises:
        ConfigError: a secret or template cannot be used; names the source.
    """
    return build_verifier(name, source, resolve_keys(name, source, scheme_of(source)))


def build_verifier(name: str, source: SourceSettings, keys: Sequence[Key]) -> Verifier:
    """Return the verifier of a source, with these keys.

    Raises:
        ConfigError: a template cannot be used; names the source.
    """
    if source.scheme == "api-key":
        return KeyVerifier(source.key_header or KeyHeader(), keys)
    scheme = scheme_of(source)
    return HmacVerifier(scheme.template, keys, scheme.twins, f"sources.{name}.hmac")
