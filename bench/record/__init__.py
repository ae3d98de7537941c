"""What a run keeps: one record per case, the run's folder, and the environment."""
