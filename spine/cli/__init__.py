"""The operators' command line: a caller of the API like any other, and for its owner a look at the installation."""
