# jepa-jax for NVIDIA GPUs. Untested: no image has been built of it yet.
#
#   docker build -t jepa-jax .
#   docker run --gpus all -v jepa-jax-cache:/cache -v "$PWD":/data jepa-jax score photos/ --output scored/
#
# The wheels of JAX bring CUDA; the host needs its driver and the NVIDIA Container Toolkit alone. /cache keeps encoders
# and compiled programs, /data is where commands run: it must be writable by the user below (or give --user).
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY jepa_jax jepa_jax
COPY convert_weights convert_weights
RUN pip install --no-cache-dir '.[cuda,analysis,stores,video,data]'

RUN useradd --create-home --uid 1000 jepa && mkdir /cache /data && chown jepa:jepa /cache /data
USER jepa
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["jepa-jax"]
CMD ["--help"]
