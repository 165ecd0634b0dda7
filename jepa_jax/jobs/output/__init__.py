"""What lies in a job's directory: its tables, its manifest, and whose it is; not how a row comes about."""
