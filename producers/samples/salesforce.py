"""Opportunity created, as a Salesforce flow or middleware posts it; key = opportunity id."""

import random
from datetime import timedelta

from producers.samples.base import Sample, guid, moment, stamp, texts, to_json

_OPPORTUNITIES = 40


def opportunity_created(rng: random.Random) -> Sample:
    """Return one event about one of some forty opportunities."""
    number = rng.randrange(_OPPORTUNITIES)
    # The opportunity's own facts hang on its number, so that two events about it agree.
    facts = random.Random(number)  # noqa: S311 - sample data
    deals = texts("salesforce")["deals"]
    deal = deals[number % len(deals)]
    account = deal["account"]
    name = f"{account['name']} - {deal['name']}"
    opportunity_id = f"006Hs00001{number:05d}AAA"
    created = moment(rng)
    event_id = guid(rng)
    document = {
        "eventId": event_id,
        "eventType": "OpportunityCreated",
        "replayId": rng.randrange(10_000, 9_999_999),
        "createdDate": stamp(created),
        "organizationId": "00DHs000001TkQvMAK",
        "opportunity": {
            "Id": opportunity_id,
            "Name": name,
            "StageName": deal["stage"],
            "Probability": deal["probability"],
            "Amount": deal["amount"] + 100 * facts.randrange(deal["amount"] // 500),
            "CurrencyIsoCode": "USD",
            "CloseDate": (created + timedelta(days=facts.randrange(20, 120))).strftime("%Y-%m-%d"),
            "Type": facts.choice(("New Customer", "Existing Customer - Upgrade", "Existing Customer - Replacement")),
            "LeadSource": facts.choice(("Web", "Trade Show", "Partner Referral", "Customer Event")),
            "NextStep": facts.choice(("Send quote", "Technical workshop", "Call with procurement", "Site visit")),
            "Description": deal["description"],
            "Owner": {"Name": facts.choice(texts("salesforce")["owners"]), "Email": "sales@example.com"},
        },
        "account": {
            "Id": f"001Hs00002{number:05d}AAA",
            "Name": account["name"],
            "Industry": account["industry"],
            "BillingCity": account["city"],
            "BillingCountryCode": account["country"],
            "NumberOfEmployees": account["employees"],
        },
        "lineItems": [
            {"Product": product, "Quantity": facts.randrange(1, 25), "Discount": facts.choice((0, 0, 5, 10))}
            for product in deal["products"]
        ],
    }
    return Sample(event_id, to_json(document), opportunity_id, name)
