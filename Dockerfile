# CPU by default; with CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t qsde:cuda .
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/qsde
ENV PATH=/opt/qsde/bin:$PATH
# torch is by far the largest, and changes least: a layer of its own
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.11,<2.14"
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY qsde qsde
COPY service service
RUN pip install ".[service,client]"

FROM python:${PYTHON}
RUN useradd --create-home --uid 10001 qsde && install -d -o qsde -g qsde /data
COPY --from=build /opt/qsde /opt/qsde
ENV PATH=/opt/qsde/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 \
    QSDE_HOST=0.0.0.0 QSDE_PORT=8000 QSDE_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"QSDE_PORT\"]}/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["qsde"]
CMD ["serve"]
