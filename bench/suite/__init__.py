"""What may be asked: the suite file, its models and cases, and everything that a case can name. Imports no torch."""
