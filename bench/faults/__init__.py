"""The proof that the suite sees: real mistakes of the libraries, put back one at a time while the suite runs.

``fault`` says what a fault is, ``catalogue`` lists all of them, from one module for each area. ``runner`` runs the
suite's cases once for each fault, ``outcomes`` keeps what came of it, ``report`` tells which faults were seen and
``cover`` which few cases see all of them.
"""
