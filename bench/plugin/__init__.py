"""The glue between pytest and the suite: options in, tests, terminal and JUnit out."""
