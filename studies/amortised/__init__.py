"""Where an amortised score comes from; see PROTOCOL.md."""
