"""Files and functions stay small: the budgets of the design, for the product packages."""

from statistics import median, quantiles

from tests.architecture.source import PRODUCT_PACKAGES, functions, parsed, python_files, relative

FILE_MEDIAN, FILE_CAP = 120, 400
FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_CAP = 10, 30, 60


def _file_sizes() -> dict[str, int]:
    return {relative(path): len(path.read_text("utf-8").splitlines()) for path in python_files(PRODUCT_PACKAGES)}


def _function_sizes() -> dict[str, int]:
    return {
        f"{relative(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files(PRODUCT_PACKAGES)
        for node in functions(path)
    }


def test_no_file_is_above_its_cap() -> None:
    assert {name: size for name, size in _file_sizes().items() if size > FILE_CAP} == {}


def test_the_median_file_is_small() -> None:
    sizes = [size for name, size in _file_sizes().items() if not name.endswith("__init__.py")]

    assert median(sizes) <= FILE_MEDIAN


def test_no_function_is_above_its_cap() -> None:
    assert {name: size for name, size in _function_sizes().items() if size > FUNCTION_CAP} == {}


def test_the_median_function_is_small() -> None:
    assert median(_function_sizes().values()) <= FUNCTION_MEDIAN


def test_nine_functions_of_ten_are_short() -> None:
    assert quantiles(_function_sizes().values(), n=10)[-1] <= FUNCTION_P90


def test_the_rules_see_every_package() -> None:
    packages = {name.partition("/")[0] for name in _file_sizes()}

    assert packages == set(PRODUCT_PACKAGES)
    assert all(parsed(path) for path in python_files(PRODUCT_PACKAGES))
