"""What does the suite detect? Faults like real ones of the libraries, put in one at a time.

``fault`` defines a fault, ``catalogue`` lists all of them, from one module per area. ``runner`` runs the suite's cases
with each fault, ``outcomes`` stores the results, ``report`` says which faults were detected, and ``cover`` finds the
few cases that detect all of them.
"""
