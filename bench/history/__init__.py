"""Many releases: the timeline of all, and the bisection that finds the one that changed a case."""
