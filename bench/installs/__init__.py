"""The installs that are compared: what a side is, and the environment that is made of it."""
