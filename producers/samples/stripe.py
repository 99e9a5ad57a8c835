"""invoice.payment_failed and charge.dispute.created, as Stripe posts them; key = customer."""

import random
from typing import Any

from producers.samples.base import Sample, moment, texts, to_json, token

_CUSTOMER_COUNT = 30


def payment_event(rng: random.Random) -> Sample:
    """Return a failed invoice payment, or in a third of the cases a dispute."""
    number = rng.randrange(_CUSTOMER_COUNT)
    customers = texts("stripe")["customers"]
    customer = customers[number % len(customers)]
    customer_id = f"cus_R7penstock{number:04d}"
    is_dispute = rng.random() < 1 / 3
    kind = "charge.dispute.created" if is_dispute else "invoice.payment_failed"
    inner = _dispute(rng) if is_dispute else _failed_invoice(rng)
    event_id = f"evt_1{token(rng, 23)}"
    document = {
        "id": event_id,
        "object": "event",
        "api_version": "2026-06-30",
        "created": int(moment(rng).timestamp()),
        "type": kind,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {
            "object": inner
            | {
                "customer": customer_id,
                "customer_name": customer["name"],
                "customer_email": customer["email"],
                "account_country": customer["country"].upper(),
            }
        },
    }
    return Sample(event_id, to_json(document), customer_id, f"{customer['name']}: {kind}")


def _failed_invoice(rng: random.Random) -> dict[str, Any]:
    failure = rng.choice(texts("stripe")["failures"])
    amount, said, attempt = failure["amount"], failure["message"], failure["attempt"]
    return {
        "id": f"in_1{token(rng, 23)}",
        "object": "invoice",
        "number": f"PS-{rng.randrange(1_000, 99_999):05d}",
        "amount_due": amount,
        "amount_paid": 0,
        "amount_remaining": amount,
        "currency": rng.choice(("usd", "eur")),
        "attempt_count": attempt,
        "attempted": True,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "description": f"{failure['plan']}. {said}",
        "last_finalization_error": None,
        "last_payment_error": {"code": "card_declined", "decline_code": failure["decline_code"], "message": said},
        "next_payment_attempt": None if attempt > 3 else int(moment(rng).timestamp()) + 3 * 86_400,  # noqa: PLR2004
        "status": "open",
        "subscription": f"sub_1{token(rng, 23)}",
        "metadata": {"plan": failure["plan"], "account_note": failure["note"]},
    }


def _dispute(rng: random.Random) -> dict[str, Any]:
    dispute = rng.choice(texts("stripe")["disputes"])
    return {
        "id": f"du_1{token(rng, 23)}",
        "object": "dispute",
        "amount": dispute["amount"],
        "currency": rng.choice(("usd", "eur")),
        "charge": f"ch_3{token(rng, 23)}",
        "payment_intent": f"pi_3{token(rng, 23)}",
        "reason": dispute["reason"],
        "status": "needs_response",
        "is_charge_refundable": False,
        "evidence": {
            "product_description": dispute["product"],
            "customer_communication": dispute["statement"],
            "uncategorized_text": dispute["evidence"],
        },
        "evidence_details": {
            "due_by": int(moment(rng).timestamp()) + 9 * 86_400,
            "has_evidence": True,
            "past_due": False,
            "submission_count": 0,
        },
    }
