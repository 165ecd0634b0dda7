"""What scoring costs: memory, time and multiplications, foretold without data or devices, tried on a few, or measured.

Nothing that computes a score stands on this room: it serves ``plan``, ``--dry-run``, ``bench`` and ``calibrate``.
"""
