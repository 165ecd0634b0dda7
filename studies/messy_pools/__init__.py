"""Does a score find the mess in a pool, and is what it keeps worth more? See PROTOCOL.md."""
