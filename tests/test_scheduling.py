"""Which tests are handed out together."""

from tests.scheduling import group_of


def test_tests_that_share_a_fixture_of_their_module_are_one_group() -> None:
    first, second = "tests/kafka/test_sync.py::test_a", "tests/kafka/test_sync.py::test_b[1]"

    assert group_of(first) == group_of(second) == "tests/kafka/test_sync.py"


def test_others_are_handed_out_one_by_one() -> None:
    for alone in ("tests/kafka/test_worker.py::test_a[x/y]", "tests/kafka/test_worker.py::test_b", "gone.py::test_a"):
        assert group_of(alone) == alone
