"""Races against PyTorch, on the record."""
