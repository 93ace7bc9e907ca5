"""Pure decisions: values and `now` in, a verdict out; no I/O, no clock and no randomness of their own."""
