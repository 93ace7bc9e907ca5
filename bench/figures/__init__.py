"""The promised figures, one module for each. A figure is a ratio or a time measured within one run on one machine."""
