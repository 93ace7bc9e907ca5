"""The benchmarks: real processes on one machine, ratios within one run, every id accounted for at the end."""
