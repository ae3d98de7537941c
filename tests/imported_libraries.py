"""Imports what workers import, before they are forked."""

from bench.faults.runner import import_libraries
from bench.upgrade import worker  # noqa: F401

import_libraries()
