# For a machine with an NVIDIA GPU and its container toolkit. We have not built this image.
#
#     docker build --tag langadapt .
#     docker run --gpus all --volume "$PWD:/data" langadapt run --language fi --profile gpu -p corpus.target=finnish.txt
#
# The torch wheel on PyPI includes CUDA. Compiled layers need a C compiler.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /langadapt
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY langadapt_utils langadapt_utils
COPY notebooks notebooks
COPY data data
RUN pip install --no-cache-dir --constraint constraints.txt '.[gpu,lora,export]'

# Runs, texts and the cache of models are in the mounted folder.
ENV LANGADAPT_CACHE=/data/.cache/langadapt HF_HOME=/data/.cache/huggingface
WORKDIR /data
ENTRYPOINT ["langadapt"]
