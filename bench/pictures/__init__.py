"""Are the pictures right? Grids, similarity, limits, and the golden store."""
