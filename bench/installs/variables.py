"""The variables of a process whose Python must import the libraries of its own environment."""

from __future__ import annotations

from collections.abc import Mapping

# They make every Python import the same libraries, whichever environment it belongs to.
FOREIGN_PATHS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
# The user's site-packages are shared by all environments of a Python version.
OWN_LIBRARIES = {"PYTHONNOUSERSITE": "1"}


def own_libraries(variables: Mapping[str, str]) -> dict[str, str]:
    """These variables without those that bring libraries from outside the environment."""
    return {name: value for name, value in variables.items() if name not in FOREIGN_PATHS} | OWN_LIBRARIES
