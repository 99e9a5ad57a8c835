"""Shares a call's usage out to the events it was made for; nothing is lost in rounding."""

from collections.abc import Sequence

from contracts.payloads import Usage


def split_exactly(total: int, weights: Sequence[int]) -> list[int]:
    """Return shares in proportion to the weights (>= 0), each less than one off, whose sum is the total."""
    parts = weights if any(weights) else [1] * len(weights)
    whole = sum(parts)
    shares, seen, given = [], 0, 0
    for part in parts:
        seen += part
        share = total * seen // whole - given
        given += share
        shares.append(share)
    return shares


def share_out(usage: Usage, asked: Sequence[int], answered: Sequence[int]) -> list[Usage]:
    """Return each event's part of a call's tokens.

    Args:
        usage: as the provider reports it.
        asked: sizes of the events' prompts, for the input.
        answered: sizes of their answers, for the output; by the prompts when nothing was answered.
    """
    outputs = answered if any(answered) else asked
    columns = (
        split_exactly(usage.input_tokens, asked),
        split_exactly(usage.output_tokens, outputs),
        split_exactly(usage.cache_read_tokens, asked),
        split_exactly(usage.cache_write_tokens, asked),
    )
    return [Usage(*row) for row in zip(*columns, strict=True)]
