"""Shipped configs: each file defines CONFIG, and says what it costs, what came of it, and the command."""
