"""From a case to its images, seconds and counts, on any device."""
