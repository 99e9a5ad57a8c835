"""What a call cost is shared out to its events to the last token."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.payloads import Usage
from streams.steps.invoke import share_out, split_exactly

TOKENS = st.integers(0, 10**7)
SIZES = st.lists(st.integers(0, 10**6), min_size=1, max_size=64)


@given(total=TOKENS, weights=SIZES)
def test_shares_add_up_to_the_total_and_follow_the_weights(total: int, weights: list[int]) -> None:
    shares = split_exactly(total, weights)

    assert sum(shares) == total
    if any(weights):
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share - total * weight / sum(weights)) <= 1


@given(usage=st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS), sizes=st.lists(st.tuples(TOKENS, TOKENS), min_size=1))
def test_every_kind_of_token_is_shared_out_whole(usage: Usage, sizes: list[tuple[int, int]]) -> None:
    shares = share_out(usage, [asked for asked, _ in sizes], [answered for _, answered in sizes])

    assert Usage(
        sum(share.input_tokens for share in shares),
        sum(share.output_tokens for share in shares),
        sum(share.cache_read_tokens for share in shares),
        sum(share.cache_write_tokens for share in shares),
    ) == usage  # fmt: skip


def test_input_follows_the_prompts_and_output_the_answers() -> None:
    assert share_out(Usage(30, 40), [1, 2], [3, 1]) == [Usage(10, 30), Usage(20, 10)]


def test_when_nothing_was_answered_the_output_follows_the_prompts() -> None:
    assert share_out(Usage(30, 30), [1, 2], [0, 0]) == [Usage(10, 10), Usage(20, 20)]
