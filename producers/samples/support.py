"""Support ticket created or updated, by a sender that follows Standard Webhooks; key = ticket id."""

import random

from producers.samples.base import Sample, moment, stamp, texts, to_json, token

_TICKET_COUNT = 50


def ticket_event(rng: random.Random) -> Sample:
    """Return one event about one of some fifty tickets."""
    number = rng.randrange(_TICKET_COUNT)
    tickets, people = texts("support")["tickets"], texts("support")["people"]
    ticket, person = tickets[number % len(tickets)], people[number % len(people)]
    is_new = rng.random() < 0.7  # noqa: PLR2004 - most events are new tickets
    ticket_id = f"TCK-{10_400 + number}"
    instant = stamp(moment(rng))
    document = {
        "type": "ticket.created" if is_new else "ticket.updated",
        "timestamp": instant,
        "data": {
            "ticket_id": ticket_id,
            **ticket,
            "channel": rng.choice(("email", "web", "chat")),
            "status": "new" if is_new else "open",
            "created_at": instant,
            "requester": person,
            "tags": [ticket["category"], person["plan"]],
        },
    }
    return Sample(f"msg_{token(rng, 27)}", to_json(document), ticket_id, f"{ticket_id}: {ticket['subject']}")
