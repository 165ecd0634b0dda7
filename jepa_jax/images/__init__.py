"""From what a user has to what an encoder sees: sources, decoding, preprocessing, views. Free of JAX.

The worker processes of a job import this room and nothing beside it but the errors.
"""

from jepa_jax.images.decoding import InputRecipe as InputRecipe
from jepa_jax.images.recipe import PreprocessSpec as PreprocessSpec
from jepa_jax.images.sources import Records as Records
from jepa_jax.images.sources import open_source as open_source
from jepa_jax.images.sources import open_sources as open_sources
from jepa_jax.images.views import ViewRecipe as ViewRecipe
from jepa_jax.images.views import Views as Views
from jepa_jax.images.views import ViewsResult as ViewsResult
from jepa_jax.images.views import combine_views as combine_views
from jepa_jax.images.views import view_recipe as view_recipe
