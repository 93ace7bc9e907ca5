"""The promised figures, a room each; every one is a ratio or a time measured within one run on one machine."""
