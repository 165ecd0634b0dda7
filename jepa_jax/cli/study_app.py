"""`jepa-jax study`: the group of commands that the studies register with."""

from jepa_jax.cli.app import App, app
from jepa_jax.cli.help import Group

study = App(cls=Group, no_args_is_help=True, help="Experiments of the paper and about it; each writes its figures.")
app.add_typer(study, name="study")
