"""Limits that were measured: how far harmless variations of the machine move the pictures of each case."""
