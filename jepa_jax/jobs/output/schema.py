"""The columns of the tables, each documented in its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import pyarrow as pa

from jepa_jax.jobs.output.columns import layer_columns

SaveDtype = Literal["float32", "float16"]
"""Dtypes in which the optional columns are saved."""

SAVABLE = ("singular_values", "embedding")
"""Optional columns of the score table."""

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "record key"}),
        pa.field("reason", pa.string(), nullable=False, metadata={"doc": "why it has no score"}),
        pa.field("bytes", pa.int64(), metadata={"doc": "of the encoded picture, where it was read"}),
    ]
)

EXACT, PREDICTED = "exact", "amortised"
"""Values of ``method``."""

SAVE_DTYPES = get_args(SaveDtype)


def score_schema(
    embedding_size: int,
    gaussian: bool,
    columns: Sequence[str],
    save_dtype: SaveDtype = "float32",
    score_only: bool = False,
    views: int = 1,
    layers: Mapping[int, int] | None = None,
) -> pa.Schema:
    """The score table of an encoder of this embedding size.

    Args:
        embedding_size: K, the length of the optional columns' fixed-size lists.
        gaussian: whether there is a ``gaussian_score``.
        columns: optional columns, of `SAVABLE`.
        save_dtype: of the optional columns' values.
        score_only: whether ``listing_score`` is left out.
        views: random views whose scores are combined; 1 for the image itself.
        layers: that are scored as well, by number: of how many singular values each score is the sum.
    """
    vector = pa.list_(pa.float16() if save_dtype == "float16" else pa.float32(), embedding_size)
    several = views > 1
    itself = "; of the image itself, not of its views" * several
    combined = f"; -log mean exp(-score) over {views} random views" * several
    optional = {
        "singular_values": _field(
            "singular_values", vector, f"all singular values of the Jacobian, descending{itself}"
        ),
        "embedding": _field("embedding", vector, f"the encoder's output{itself}"),
    }
    fields = [
        _field("key", pa.string(), "record key: path below the input, or position in it", nullable=False),
        _field("place", pa.string(), "where the picture is: a path, or an archive or a table, and what of it"),
        _field("bytes", pa.int64(), "of the encoded picture"),
        _field(
            "score",
            pa.float64(),
            f"sum of log singular values over the structural rank, nats; higher = denser{combined}",
        ),
        _field("score_error", pa.float64(), "predicted bound of the score's rounding error, nats"),
        _field("precision", pa.string(), "of the Jacobian's products, finer where a tolerance asked for it"),
    ]
    if several:
        fields[4:4] = [
            _field(
                "views_standard_error",
                pa.float64(),
                "of the score over the draw of the views (jackknife), nats; rounding is in score_error",
            ),
            _field(
                "effective_views",
                pa.float64(),
                f"how many of the {views} views carry the score: 1 where one view decides",
            ),
        ]
    if not score_only:
        fields.append(
            _field(
                "listing_score",
                pa.float64(),
                f"the paper's listing: all singular values clipped at 1e-6, nats{combined}",
            )
        )
    if gaussian:
        fields.append(_field("gaussian_score", pa.float64(), f"score + log N(embedding; 0, I), nats{combined}"))
    fields.append(_field("log_volume_rank", pa.int32(), "number of singular values that score sums"))
    for number, rank in (layers or {}).items():
        score, error = layer_columns(number)
        none = "null where that is no measurement (values below the clip, or no finite number)"
        fields += [
            _field(
                score,
                pa.float64(),
                f"sum of the logs of {rank} singular values of block {number}'s own embedding, its tokens in the "
                f"final LayerNorm and pooled as the encoder does, nats{combined}; {none}",
            ),
            _field(error, pa.float64(), f"predicted bound of the rounding error of {score}, nats"),
        ]
    return pa.schema([*fields, *(optional[name] for name in columns)])


def amortised_schema(embedding_size: int, columns: Sequence[str], save_dtype: SaveDtype = "float32") -> pa.Schema:
    """The table of an amortised job: some scores exact, the others predicted.

    Args:
        embedding_size: K, the length of the embedding's fixed-size lists.
        columns: ``embedding`` or nothing.
        save_dtype: of its values.
    """
    whole = score_schema(embedding_size, False, columns, save_dtype, score_only=True)
    low, high = "the exact score lies between this", "and this, for the promised share of familiar images"
    fields = {field.name: field for field in whole} | {
        "score_low": _field("score_low", pa.float64(), f"{low}, nats; of an exact score its rounding error"),
        "score_high": _field("score_high", pa.float64(), f"{high}, nats; infinite where nothing is known"),
        "method": _field("method", pa.string(), f"{EXACT}, or {PREDICTED}: predicted from one forward pass"),
        "unfamiliar": _field("unfamiliar", pa.bool_(), "whether the image is unlike the calibration's"),
    }
    order = ["key", "place", "bytes", "score", "score_low", "score_high", "method", "unfamiliar", "score_error"]
    return pa.schema([fields[name] for name in [*order, "precision", "log_volume_rank", *columns]])


def _field(name: str, dtype: pa.DataType, doc: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})
