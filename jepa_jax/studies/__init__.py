"""Studies: is the score a density where the density is known? Each is one command and writes its figures."""
