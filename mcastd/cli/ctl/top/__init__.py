"""`mcastctl top`: flows by rate, live on a terminal or as tables in a pipe. The one command that is written by hand."""
