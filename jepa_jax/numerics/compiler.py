"""What XLA is told beyond the program, so that it stores and rounds as the levels of precision say."""

from __future__ import annotations

from jepa_jax.numerics.platforms import Platform


def compiler_options(platform: Platform) -> dict[str, bool | str]:
    """What XLA is told beyond the program."""
    if platform == "cpu":
        return {}
    # Else what is stored in 16 bits and read again is kept in float32, for the digits, at twice the bytes.
    options: dict[str, bool | str] = {"xla_allow_excess_precision": False}
    if platform == "gpu":
        # cuBLAS has all that XLA multiplies; to look for better products takes a minute for a ViT-S, and finds none.
        options["xla_gpu_enable_triton_gemm"] = False
    return options
