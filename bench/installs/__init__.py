"""The two sides of a comparison, and the environments that they ask for."""
