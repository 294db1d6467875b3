# The API and the migrations: no torch, no engine.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 LETHE_HOST=0.0.0.0 LETHE_PORT=8321 LETHE_DATA_DIR=/var/lib/lethe LETHE_LOG_FORMAT=json
WORKDIR /srv/lethe
RUN useradd --system --uid 10001 --home-dir /var/lib/lethe --create-home lethe

COPY pyproject.toml constraints.txt README.md ./
COPY app ./app
COPY migrations ./migrations
RUN pip install --no-cache-dir -c constraints.txt .

USER 10001
EXPOSE 8321
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/livez', timeout=4)"]
CMD ["lethe", "api"]
