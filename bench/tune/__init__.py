"""The best picture for the least time: searches the settings of a model on a device."""
