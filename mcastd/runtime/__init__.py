"""The server process: composition of everything else."""
