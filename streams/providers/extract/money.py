"""Reads and writes amounts of money."""

from typing import Any

from streams.providers.extract.lexicon import word_set

# Source: Stripe documentation, "Zero-decimal currencies" (checked 2026-11).
_WITHOUT_MINOR_UNIT = word_set("bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf")
# Also what keeps Infinity, NaN (comparisons are false) and thousand-digit integers out.
_ABSURD = 1e15
_STRIPE_MARKS = frozenset({"livemode", "object"})


def amount(named: dict[str, Any], keys: tuple[str, ...], currency: str) -> float | None:
    """Return the first amount under one of the keys, in major units; None when there is none.

    An integer beside a lower-case currency in an object that is marked as Stripe's counts minor units (cents).
    """
    for key in keys:
        value = number(named.get(key))
        if value is not None:
            is_minor = isinstance(named[key], int) and _STRIPE_MARKS & named.keys() and currency.islower()
            return value / 100 if is_minor and currency not in _WITHOUT_MINOR_UNIT else value
    return None


def number(value: Any) -> float | None:
    """Return a JSON value as a number when it is one, or text that is only one (`48,000`, `$480.50`)."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < _ABSURD else None
    if not isinstance(value, str) or len(value) > 40:  # noqa: PLR2004 - longer ones are texts
        return None
    plain = "".join(char for char in value.replace(",", "") if char.isdigit() or char in ".-")
    letters = sum(char.isalpha() for char in value)
    try:
        return float(plain) if letters <= 3 and value.strip()[-1:].isdigit() and value.count("-") <= 1 else None  # noqa: PLR2004 - a currency code
    except ValueError:
        return None


def written(value: float, currency: str = "") -> str:
    """Return an amount for reading: `USD 48,000`, `EUR 480.50`."""
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return f"{currency.upper()} {text}".strip()
