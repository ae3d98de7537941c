"""What the suite proves about schedulers, processors and itself, apart from any golden."""
