"""Who types `penstock dlq redrive` may write to every topic to which it puts events back."""

import re

from contracts.topics import LANES, Topics
from tests.deploy.kafka_acls import rows, rules
from tests.support import ROOT


def test_people_may_write_wherever_a_letter_may_come_from() -> None:
    allowed = [
        rule.name for rule in rules(rows()["people"], "p", "p") if (rule.kind, rule.operation) == ("topic", "Write")
    ]
    topics = Topics("p")
    wanted = {*(topics.events(lane) for lane in LANES), topics.handovers}

    assert "topics.handovers" in (ROOT / "gateways/cli/dlq.py").read_text("utf-8")
    assert not [one for one in wanted if not any(re.fullmatch(name.replace("*", ".*"), one) for name in allowed)]
