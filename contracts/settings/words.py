"""What is said of a value of the configuration, in place of the words of the library that checks it."""

_SECTION = "must be a section: indented lines of `key: value`"
_INSTANT = "must be a time with its zone, such as 2026-12-31T23:59:59Z"
# In place of pydantic's own, by type of the problem; braces are filled from its context.
WORDS = {
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "tuple_type": "must be a list",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} entries or fewer",
    "string_type": "must be text; numbers, dates, true and false count as text in quotes only",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters or fewer",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "datetime_type": _INSTANT,
    "datetime_parsing": _INSTANT,
    "datetime_from_date_parsing": _INSTANT,
    "timezone_aware": _INSTANT,
    "path_type": "must be the path of a file",
    "ip_any_network": "must be a network, such as 10.0.0.0/8 or one address",
    "invalid_key": "a key must be text",
}
# What a number is, by the end of its setting's name: most who write 5m or 64MB mean the right thing.
UNITS = {"_s": " of seconds, such as 300", "_bytes": " of bytes, such as 1048576"}
NUMBERS = frozenset({"int_type", "int_parsing", "float_type", "float_parsing"})
