"""What was scored, read back with its pictures, for Python, notebooks, FiftyOne; and the call that scores a folder."""
