"""``jepa-jax`` and ``python -m jepa_jax`` are the command line."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it loads ends it without a word: nothing is begun that has to be finished."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from jepa_jax.cli import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
