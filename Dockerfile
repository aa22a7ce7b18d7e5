FROM python:3.11-slim

WORKDIR /opt/qsde
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY qsde qsde
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu .

RUN useradd --create-home qsde
USER qsde
WORKDIR /data
ENTRYPOINT ["qsde"]
CMD ["--help"]
