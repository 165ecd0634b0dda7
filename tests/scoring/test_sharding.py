"""What needs several devices runs in a process of its own, which has eight: see `eight_devices`."""

import os
import subprocess
import sys
from pathlib import Path


def on_eight_devices(*selection: str) -> None:
    # Devices share XLA's threads; with fewer than two each they can wait for one another for ever.
    flags = f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name("eight_devices.py")), *selection],
        env=os.environ | {"XLA_FLAGS": flags, "NPROC": "16"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_on_eight_devices():
    on_eight_devices("-k", "not family")


def test_every_family_on_eight_devices():
    on_eight_devices("-k", "family")
