"""What a file's header says of its samples, one format a file."""

from jepa_jax.images.headers.formats import BY_FORMAT as BY_FORMAT
from jepa_jax.images.headers.formats import samples_of as samples_of
from jepa_jax.images.headers.samples import Samples as Samples
