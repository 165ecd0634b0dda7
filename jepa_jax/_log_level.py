"""What XLA prints by itself: nothing below a fatal error, unless the environment says otherwise.

For every program that comes from the persistent compilation cache, XLA's CPU loader prints an error of a page, because
it takes tuning hints for features of the processor (openxla/xla issue 44565). Errors that matter are raised as well.
Read when JAX is first imported: of no effect afterwards.
"""

import os

LOG_LEVEL = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
