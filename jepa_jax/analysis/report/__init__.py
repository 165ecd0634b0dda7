"""`jepa-jax report`: one self-contained HTML file."""

from jepa_jax.analysis.report.build import ReportOptions as ReportOptions
from jepa_jax.analysis.report.build import build_report as build_report
