"""Words of the extractive reader: stems, stop words, cues, and what speaks for common labels."""

import functools
import re

_WORD = re.compile(r"\w[\w'-]*")


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


STOPWORDS = word_set(
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its me my of on or our she so such than that the their them then there these they this to us was we were what "
    "when where which who will with would you your also just very about after all any because before being both each "
    "more most only other out over own same some too under until up while am"
)


@functools.lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Return a crude stem, enough to let singular and plural, present and past meet."""
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004 - shorter stems collide
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def stems(text: str) -> list[str]:
    """Return the stems of the words that carry meaning."""
    return [stem(word) for word in _WORD.findall(text.lower()) if word not in STOPWORDS]


# Words that mark a cause, a consequence, a decision or a request: what a reader looks for first.
CUES = frozenset(
    stem(word)
    for word in word_set(
        "because cause root impact fix resolve fail failure error urgent ask request need must want cancel refund "
        "charge approve decide decision deadline due block outage result therefore however agree sign renew escalate"
    )
)

# Words before a match that turn it round ("not paid", "no outage").
NEGATIONS = word_set("not no never without neither nor cannot isn't wasn't don't didn't doesn't hasn't won't")

# Label word -> words that speak for it; a label's own words always do.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "billing": ("invoice", "charge", "charged", "refund", "payment", "paid", "price", "subscription", "card"),
    "payment": ("invoice", "charge", "charged", "refund", "paid", "card", "declined"),
    "refund": ("refund", "money back", "reimburse", "chargeback", "charged twice"),
    "technical": ("error", "bug", "crash", "exception", "timeout", "fails", "broken", "api", "500", "login", "install"),
    "bug": ("error", "crash", "exception", "traceback", "regression", "fails", "broken", "wrong", "panic"),
    "outage": ("down", "outage", "unavailable", "offline", "503", "502", "incident", "unreachable"),
    "incident": ("down", "outage", "unavailable", "degraded", "alert", "paged"),
    "feature": ("feature", "add", "support", "would be nice", "enhancement", "wish", "suggestion", "proposal"),
    "enhancement": ("feature", "add", "support", "improve", "would be nice", "proposal"),
    "question": ("how", "what", "why", "question", "wondering", "help", "clarify"),
    "documentation": ("docs", "documentation", "readme", "typo", "guide", "example"),
    "account": ("password", "login", "account", "access", "locked", "sign in", "2fa", "profile"),
    "security": ("security", "vulnerability", "cve", "leak", "breach", "phishing", "exploit", "injection"),
    "shipping": ("delivery", "parcel", "shipping", "tracking", "courier", "package", "arrived", "shipment"),
    "delivery": ("delivery", "parcel", "shipping", "tracking", "courier", "package", "arrived"),
    "cancel": ("cancel", "terminate", "unsubscribe", "close my account", "churn"),
    "sales": ("opportunity", "deal", "quote", "pricing", "prospect", "seats", "demo", "purchase", "upsell", "contract"),
    "renewal": ("renew", "renewal", "contract", "expires", "term"),
    "legal": ("legal", "lawyer", "gdpr", "contract", "compliance", "privacy"),
    "spam": ("unsubscribe", "winner", "lottery", "prize", "viagra", "click here", "free money"),
    "complaint": ("complaint", "unacceptable", "disappointed", "angry", "terrible", "worst"),
    "praise": ("thanks", "great", "love", "excellent", "awesome"),
    "positive": ("great", "love", "thanks", "thank", "excellent", "happy", "perfect", "awesome", "resolved", "pleased",
                "good", "agreed", "won", "succeeded"),
    "negative": ("angry", "terrible", "bad", "disappointed", "fail", "failed", "broken", "worst", "unacceptable",
                "frustrated", "twice", "lost", "overdue", "declined", "unhappy", "refund", "crash"),
    "risk": ("risk", "delay", "competitor", "churn", "blocked", "slipping", "overdue", "concern", "discount"),
}  # fmt: skip

URGENT = ("urgent", "asap", "immediately", "critical", "outage", "down", "emergency", "blocked", "blocker",
          "vulnerability", "data loss", "breach", "today", "escalate", "overdue", "cannot work", "production", "p0",
          "p1", "sev1")  # fmt: skip
CALM = ("whenever", "no rush", "minor", "typo", "cosmetic", "low priority", "nice to have", "someday", "question")

# Ordinal scales, lowest first; a label that is on none of them is no degree of anything.
DEGREES: dict[str, float] = {
    "none": 0.0, "trivial": 0.0, "lowest": 0.0, "info": 0.1, "low": 0.15, "minor": 0.2, "p4": 0.0, "p3": 0.25,
    "medium": 0.5, "normal": 0.5, "moderate": 0.5, "standard": 0.5, "p2": 0.5, "high": 0.8, "major": 0.75,
    "p1": 0.85, "urgent": 1.0, "critical": 1.0, "highest": 1.0, "severe": 1.0, "blocker": 1.0, "p0": 1.0,
}  # fmt: skip

# What stands for "nothing speaks for any label", in this order.
FALLBACK_LABELS = (
    "other",
    "unknown",
    "none",
    "neutral",
    "general",
    "misc",
    "uncategorized",
    "normal",
    "medium",
    "info",
)
