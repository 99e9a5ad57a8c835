"""What every control does to verify a webhook: Standard Webhooks v1, one secret, within five minutes."""

import base64
import hmac
import time

_TOLERANCE_S = 300


def is_authentic(secret: bytes, event_id: bytes, stamp: bytes, signatures: bytes, body: bytes) -> bool:
    """Tell whether one of the signatures is right and the stamp recent."""
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > _TOLERANCE_S:
        return False
    digest = hmac.digest(secret, b"%b.%b.%b" % (event_id, stamp, body), "sha256")
    wanted = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(wanted, signature) for signature in signatures.split(b" "))
