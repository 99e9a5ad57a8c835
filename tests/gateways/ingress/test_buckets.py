"""Token buckets and their table."""

from gateways.ingress.buckets import Bucket, Buckets


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(per_s=2.0, size=3.0, now_s=0.0)
    for _ in range(3):
        assert bucket.wait_s(0.0) == 0.0
        bucket.spend(0.0)

    assert bucket.wait_s(0.0) == 0.5
    assert bucket.wait_s(0.5) == 0.0


def test_a_bucket_holds_no_more_than_its_size() -> None:
    bucket = Bucket(per_s=10.0, size=2.0, now_s=0.0)

    assert bucket.wait_s(1000.0, needed=2.0) == 0.0
    assert bucket.wait_s(1000.0, needed=2.5) > 0.0


def test_something_larger_than_the_bucket_passes_and_leaves_a_debt() -> None:
    bucket = Bucket(per_s=10.0, size=5.0, now_s=0.0)
    bucket.spend(0.0, 25.0)

    assert bucket.wait_s(0.0) == 2.1
    assert bucket.wait_s(2.1) == 0.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(per_s=1.0, size=1.0, now_s=10.0)
    bucket.spend(10.0)

    assert bucket.wait_s(5.0) == 1.0
    assert bucket.wait_s(10.5) == 0.5


def test_the_table_forgets_the_names_used_longest_ago() -> None:
    table: Buckets[str] = Buckets(lambda: Bucket(1.0, 1.0, 0.0), max_names=2)
    first = table.use("a")
    table.use("b")
    table.use("a")
    table.use("c")

    assert len(table) == 2
    assert table.find("a") is first
    assert table.find("b") is None
