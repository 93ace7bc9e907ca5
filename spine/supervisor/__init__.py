"""`make up`: starts the servers, the API and the workers on one machine, and keeps them running until Ctrl-C."""
