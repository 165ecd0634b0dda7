"""What a job's manifest pins: everything that its table depends on."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import Any

import jax
import PIL

from jepa_jax._version import __version__
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.identity import pinned_form
from jepa_jax.encoders.layerwise import layer_numbers
from jepa_jax.images.sources import Records, name_in_full
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.manifest import FORMAT_VERSION
from jepa_jax.jobs.output.records import keys_digest
from jepa_jax.numerics.precision import Precision


def build_manifest(
    encoder: Encoder,
    source: Records,
    options: JobOptions,
    shard_size: int,
    noise: dict[Precision, float] | None,
) -> dict[str, Any]:
    """The manifest of a job.

    Under ``pinned`` stands what a resumed job must share; ``noise`` is what was measured; ``job`` is a digest of both,
    which each of the job's parts carries.
    """
    views = options.input_recipe(encoder.spec).views
    manifest = {
        "format_version": FORMAT_VERSION,
        "pinned": {
            "encoder": encoder.spec.name,
            "encoder_digest": encoder.digest,
            "image_size": encoder.spec.image_size,
            "preprocessing": pinned_form(encoder.spec.preprocess),
            "precision": options.score.precision,
            "tolerance": options.score.tolerance,
            "score_only": not options.score.spectrum,
            "input": name_in_full(source.name),  # another folder may hold files of the same names
            "records": len(source.keys),
            "keys_sha256": keys_digest(source.keys),
            "shard_size": shard_size,
            "columns": sorted(options.columns),
            "views": options.views,
            "save_dtype": options.save_dtype if options.columns else None,
            "jepa_jax": __version__,
            "jax": jax.__version__,
            "pillow": PIL.__version__,  # decodes and resizes
        }
        | ({} if views is None else {"view_seed": views.seed, "view_recipe": pinned_form(views.recipe)})
        | ({"noise_images": options.noise_images} if options.noise_images else {})
        | options.method
        | ({"layers": layer_numbers(options.score.layers, encoder.spec.vit.depth)} if options.score.layers else {})
        | ({"av": version("av")} if source.videos else {}),  # decodes
        "noise": noise,
        "encoder_spec": pinned_form(encoder.spec),
        "left_out": source.left_out,
        "device": jax.local_devices()[0].device_kind,
        "platform": platform.platform(),
        "complete": False,
    }
    manifest = json.loads(json.dumps(manifest))  # as it will be read back, for comparing
    return manifest | {"job": _digest([manifest["pinned"], manifest["noise"]])}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
