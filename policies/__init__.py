"""Pure decision functions: they take values and `now` and return a decision. No I/O, no clock, no randomness."""
