"""What `make dist` does: sdists, wheels and the .deb, the same bytes from the same commit."""
