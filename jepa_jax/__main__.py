"""``python -m jepa_jax`` is the command line."""

from jepa_jax.cli import main

if __name__ == "__main__":
    main()
