"""The command line: thin, one file per command or family of commands, imported here to register them."""

from jepa_jax.cli import bench as bench
from jepa_jax.cli import calibrate as calibrate
from jepa_jax.cli import demo as demo
from jepa_jax.cli import doctor as doctor
from jepa_jax.cli import evaluate as evaluate
from jepa_jax.cli import fiftyone as fiftyone
from jepa_jax.cli import plan as plan
from jepa_jax.cli import report as report
from jepa_jax.cli import score as score
from jepa_jax.cli import select as select
from jepa_jax.cli import study_density as study_density
from jepa_jax.cli import study_paper as study_paper
from jepa_jax.cli import train as train
from jepa_jax.cli import weights as weights
from jepa_jax.cli.app import app as app
from jepa_jax.cli.app import main as main
