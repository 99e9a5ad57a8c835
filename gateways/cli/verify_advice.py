"""What to do about each reason of a refusal, in a sentence or two."""

_REWRITTEN = (
    "Something between the sender and the gateway writes the body anew, or the capture was made behind such a step. "
    "Pass the raw bytes through: no JSON parser, no template, no form decoder in front of the gateway."
)
_SPELLED = (
    "The sender writes its signature in another way than the scheme says. Mend the sender, or describe what it does "
    "with scheme hmac (encoding, prefix, layout)."
)
_ADVICE = {
    "missing_header": "The signature's header is not there. Is this the sender you think, and does no proxy drop it?",
    "missing_timestamp": "The sender's time is not there. Is this the sender you think, and does no proxy drop it?",
    "malformed": "The header holds no signature of this scheme. Compare its version and prefix with the scheme's.",
    "malformed_id": "The id has characters that could move the boundary of what was signed. Mend the sender.",
    "malformed_timestamp": "The time must be plain Unix seconds. Mend the sender.",
    "stamp_in_ms": "The sender writes milliseconds where the scheme has seconds. Mend the sender.",
    "stale": (
        "The request waited somewhere, was captured long ago (give --now with the time of the capture), or a clock is "
        "wrong. Only if such delays are normal: sources.<name>.tolerance_s."
    ),
    "in_future": "The sender's clock, or that of the gateway, is wrong: compare both with NTP.",
    "retired_key": "The sender still signs with a secret that has ended. Give it the new one, or move not_after.",
    "key_not_yet_valid": "The sender uses the new secret already. Move its not_before.",
    "secret_not_decoded": "The sender signs with the text of the secret. Its bytes, decoded, are the key.",
    "secret_decoded": (
        "The sender decodes the secret before it signs, and the scheme takes its text. Mend the sender, or use scheme "
        "hmac with key_encoding."
    ),
    "secret_spaces": "One side has a line end or a space too much in its secret. Store it again, without.",
    "body_reserialised": _REWRITTEN,
    "body_line_end": _REWRITTEN,
    "body_charset": _REWRITTEN,
    "signature_spelling": _SPELLED,
    "signature_encoding": _SPELLED,
    "signature_prefix": _SPELLED,
    "url_differs": "The sender signs another URL than public_url of the source. Configure the one it was given.",
    "body_hash_differs": _REWRITTEN,
    "digest_differs": _REWRITTEN,
    "not_notifications": (
        "The body is no collection of change notifications: a JSON object whose `value` holds at least one. Is this "
        "Microsoft Graph?"
    ),
    "missing_client_state": (
        "A notification carries no clientState: its subscription was made without one. Make it anew with the secret."
    ),
    "wrong_client_state": (
        "A notification carries another clientState than the source's secrets. Which of your subscriptions is it? Its "
        "clientState is what stood in the request that made it: add that as a secret, or make the subscription anew."
    ),
    "untrusted_peer": "Give --peer the address that the proxy connects from, or add it to trusted_proxies.",
    "other_source": "The request went to the URL of another source, or two secrets are mixed up.",
    "other_scheme": "Either the scheme of the source is wrong, or the sender is not the one you think.",
    "invalid_payload": "The request says something twice. No sender does that; look at the proxies in between.",
    "wrong_signature": (
        "No secret fits, nor any usual change of the body. Compare the secret at the sender, character by character; "
        "then capture the request as near to the sender as you can."
    ),
}


def advice(reason: str) -> str:
    """Return what to do."""
    return _ADVICE.get(reason, "See the table of reasons in docs/webhooks.md.")


def explained_reasons() -> frozenset[str]:
    """Return the reasons with an advice of their own."""
    return frozenset(_ADVICE)
