"""What XLA is told beyond the program, so that it stores and rounds as the levels of precision say."""

from __future__ import annotations

from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision


def compiler_options(platform: Platform, precision: Precision) -> dict[str, bool | str]:
    """What XLA is told beyond the program."""
    if platform == "cpu":
        return {}
    # Else what is stored in 16 bits and read again is kept in float32, for the digits, at twice the bytes.
    options: dict[str, bool | str] = {"xla_allow_excess_precision": False}
    if platform == "gpu":
        # cuBLAS has all products but these; to look for better ones takes a minute for a ViT-S, and finds none.
        options["xla_gpu_enable_triton_gemm"] = precision == "bfloat16_3x"
    if platform == "gpu" and precision == "bfloat16_3x":
        # XLA makes three products of cuBLAS' of it where these are faster, and cuts operands off instead of rounding
        # them: all numbers become smaller by 2e-5, a ViT-S's score by 0.013 nats (measured), 60 times its error.
        options["xla_gpu_cublas_fallback"] = False
    return options
