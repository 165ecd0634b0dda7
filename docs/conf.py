"""How the documentation is built: ``make docs``. Warnings are errors: links lead somewhere, examples run."""

import sys
from pathlib import Path

import jepa_jax

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "jepa_jax"
author = "the jepa_jax developers"
release = version = jepa_jax.__version__

extensions = [
    "myst_nb",  # Markdown, and notebooks, which are run by the build
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings with Args: and Returns:
    "sphinx.ext.mathjax",
    "command_help",
    "repository_links",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"jepa_jax {release}"
html_static_path = ["_static"]
html_css_files = ["outputs.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
nb_execution_in_temp = True
nb_merge_streams = True

default_role = "code"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
