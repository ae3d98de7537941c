"""Connects the suite to pytest: options, tests, terminal output and JUnit."""
