"""What a job tells whoever watches it, and how a console shows it."""
