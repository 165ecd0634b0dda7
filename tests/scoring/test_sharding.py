"""What needs several devices runs in a process of its own, which has eight: see `eight_devices`."""

import os
import subprocess
import sys
from pathlib import Path


def test_on_eight_devices():
    # Devices share XLA's threads; with fewer than two each they can wait for one another for ever.
    settings = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "NPROC": "16"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name("eight_devices.py"))],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
