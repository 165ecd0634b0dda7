"""What scores are good for: evaluation, selection, several views, reports."""

from jepa_jax.analysis.conformal import p_values as p_values
from jepa_jax.analysis.dual import DualTest as DualTest
from jepa_jax.analysis.dual import fit_dual as fit_dual
from jepa_jax.analysis.evaluation import Evaluation as Evaluation
from jepa_jax.analysis.evaluation import Options as Options
from jepa_jax.analysis.evaluation import evaluate as evaluate
from jepa_jax.analysis.reference import ReferenceSplit as ReferenceSplit
from jepa_jax.analysis.reference import hold_out as hold_out
from jepa_jax.analysis.report import ReportOptions as ReportOptions
from jepa_jax.analysis.report import build_report as build_report
from jepa_jax.analysis.views import score_views as score_views
from jepa_jax.images.views import ViewsResult as ViewsResult
from jepa_jax.scored.reading import read_table as read_table
from jepa_jax.scored.table import ScoreTable as ScoreTable
