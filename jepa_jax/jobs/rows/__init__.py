"""From decoded records to rows of the table: what jobs share with `jepa_jax.batch_scorer`."""
