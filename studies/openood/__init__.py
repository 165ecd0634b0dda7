"""OpenOOD v1.5's sets by one command, in its own layout. See README.md."""
