"""Parameters of notebooks as words of a command line."""

import yaml


class ParameterError(ValueError):
    """A parameter that a notebook doesn't have, or that can't be read."""


def parse(assignments: list[str]) -> dict[str, object]:
    """Parameters from words NAME=VALUE: names in lower case, values read as YAML.

    Raises ParameterError for a word of another form.
    """
    parameters = {}
    for word in assignments:
        name, sign, value = word.partition("=")
        if not (sign and name.isidentifier()):
            raise ParameterError(f"{word!r} is no parameter; write NAME=VALUE, such as SEED=1")
        try:
            parameters[name.lower()] = "" if value == "" else yaml.safe_load(value)
        except yaml.YAMLError:
            raise ParameterError(f"the value of {word!r} can't be read; put it in quotes") from None
    return parameters
