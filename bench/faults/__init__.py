"""The proof that the suite sees: mistakes like real ones of the libraries, made one at a time.

``fault`` says what a fault is, ``catalogue`` lists all of them, from one module for each area. ``runner`` runs the
suite's cases once for each fault, ``outcomes`` keeps what came of it, ``report`` tells which faults were seen and
``cover`` which few cases see all of them.
"""
