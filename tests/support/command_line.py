"""The console script, as users call it."""

import os
import subprocess
import sys
from pathlib import Path


def run(*arguments: str | Path, columns: int = 200) -> subprocess.CompletedProcess[str]:
    """Run it; by default wide enough that no message is wrapped."""
    command = [str(Path(sys.executable).parent / "jepa-jax"), *map(str, arguments)]
    environment = os.environ | {"COLUMNS": str(columns)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
