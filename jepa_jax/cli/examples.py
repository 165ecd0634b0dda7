"""The examples and the order of ``--help``: two commands for each command, and what belongs together."""

from __future__ import annotations

COMMANDS = {
    "Scores": ("score", "report", "select", "evaluate", "fiftyone", "calibrate"),
    "Encoders": ("models", "convert", "export", "train"),
    "This machine": ("demo", "doctor", "plan", "bench"),
    "Experiments": ("study",),
}
"""Commands by what they are for, in the order in which a newcomer meets them."""

PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "score": {
        "Input and output": ("output", "column", "keys", "limit", "shuffle_seed", "shard_size", "dry_run"),
        "Encoder": ("model", "image_size", "frames", "frame_step", "position_resize", "l2_normalize"),
        "Scores": (
            "precision",
            "tolerance",
            "noise_images",
            "score_only",
            "save",
            "save_dtype",
            "views",
            "seed",
            "layer",
        ),
        "Machine": ("memory", "batch_size", "workers"),
    },
    "select": {
        "Rules: give one": ("between", "rarest", "typical", "sample", "against"),
        "With --against": ("rate", "false_discovery", "side"),
        "With --sample": ("temperature",),
        "Input and output": (
            "output",
            "others",
            "group_by",
            "column",
            "null_directions",
            "seed",
            "partial",
            "as_json",
        ),
    },
    "evaluate": {
        "Sets": ("in_set", "out", "reference", "reference_share", "drop_overlap", "images", "partial"),
        "Statistics": ("complexity_images", "null_directions", "resamples", "seed"),
        "Output": ("output", "as_json"),
    },
    "report": {
        "Page": ("output", "title", "group_by", "per_shelf", "groups", "extremes", "complexity_images"),
        "Input": ("keys", "null_directions", "images", "partial"),
    },
    "plan": {
        "Scores": ("model", "image_size", "frames", "precision", "score_only", "layer", "mode", "engine"),
        "Machine": ("memory", "batch_size", "target", "compile"),
        "A job": ("images", "devices", "rate", "price", "picture", "decoded", "cores"),
        "Amortised scores": ("method", "forward_rate", "exact_sample", "escalate"),
        "Output": ("as_json",),
    },
}
"""Options of a command by panel; one that stands nowhere here is in the panel that it names, or in "Options"."""

EXAMPLES: dict[str, tuple[str, str]] = {
    "": ("jepa-jax demo", "jepa-jax score photos/ --output scored/"),
    "score": (
        "jepa-jax score photos/ --model dinov2-small --output scored/",
        "jepa-jax score 'shards-{000..127}.tar' --output scored/ --method amortised",
    ),
    "report": (
        "jepa-jax report scored/",
        "jepa-jax report train=scored-train/ test=scored-test/ --group-by '^([a-z]+)_' --output both.html",
    ),
    "select": (
        "jepa-jax select scored/ --rarest 100 --output rarest/",
        "jepa-jax select scored/ --against scored-reference/ --rate 0.05 --output unusual/",
    ),
    "evaluate": (
        "jepa-jax evaluate --in scored-photos/ --out scored-textures/",
        "jepa-jax evaluate --in in=scored-photos/ --out scored-noise/ --reference scored-train/ --output figures/",
    ),
    "fiftyone": (
        "jepa-jax fiftyone scored/ --output for-fiftyone/",
        "jepa-jax fiftyone scored/ --images moved-photos/ --output for-fiftyone/",
    ),
    "calibrate": (
        "jepa-jax calibrate photos/ --model dinov2-small",
        "jepa-jax calibrate photos/ --images 1000 --precision bfloat16 --json",
    ),
    "models": ("jepa-jax models", "jepa-jax models --json"),
    "convert": (
        "jepa-jax convert dinov2-base/ --output converted/",
        "jepa-jax convert dinov2_vits14_pretrain.pth --model dinov2-small --output converted/",
    ),
    "export": ("jepa-jax export converted/ --output folder/", "jepa-jax export dinov2-small --output folder/"),
    "train": (
        "jepa-jax train jepa-tiny --data cifar10.npz --output run/",
        "jepa-jax train my_config.py --data images.npz --output run/ --steps 1000",
    ),
    "demo": ("jepa-jax demo", "jepa-jax demo --output my-demo/"),
    "doctor": ("jepa-jax doctor", "jepa-jax doctor --json"),
    "plan": (
        "jepa-jax plan --model dinov2-base --target h100:8",
        "jepa-jax plan --model dinov2-small --images 1e9 --rate 40 --devices 256 --price 1.2",
    ),
    "bench": (
        "jepa-jax bench --model dinov2-small --output here.json",
        "jepa-jax bench --compare here.json there.json",
    ),
}
"""Two commands that run as they stand, given the files that they name."""
