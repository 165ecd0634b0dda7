"""A real S3 server on this machine (moto's), and how many requests it is asked."""

from __future__ import annotations

import contextlib
import os
import urllib.request
from collections import Counter
from collections.abc import Iterator
from unittest import mock

BUCKET = "bucket"

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """While entered, ``s3://`` means a server here, which has an empty bucket; its address."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    # The server's buckets belong to the process, and outlive it.
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
    with mock.patch.dict(os.environ, KEYS | {"AWS_ENDPOINT_URL": address}):
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            s3fs.S3FileSystem().mkdir(BUCKET)
            yield address
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


@contextlib.contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """How often this process asks S3 for each operation, while entered."""
    import s3fs

    counter: Counter[str] = Counter()
    whole = s3fs.S3FileSystem._call_s3

    async def counting(self, method: str, *arguments, **named):
        counter[method] += 1
        return await whole(self, method, *arguments, **named)

    with mock.patch.object(s3fs.S3FileSystem, "_call_s3", counting):
        yield counter
