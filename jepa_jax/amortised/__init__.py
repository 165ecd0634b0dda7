"""Amortised scores: the exact score as one forward pass predicts it, with intervals, alarms and exact tails."""

from jepa_jax.amortised.amortised import Amortised as Amortised
from jepa_jax.amortised.amortised import AmortisedScores as AmortisedScores
from jepa_jax.amortised.amortised import fit_amortised as fit_amortised
from jepa_jax.amortised.escalation import Escalation as Escalation
from jepa_jax.amortised.features import feature_count as feature_count
from jepa_jax.amortised.features import feature_stream as feature_stream
from jepa_jax.amortised.features import features as features
