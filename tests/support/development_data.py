"""Where data for development lie beside the project; tests that need them skip elsewhere, and say so."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SHARED_DATA = PROJECT.parent / "shared" / "data"
