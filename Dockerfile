# proxytrain as a command, with what pip takes for torch (on x86 the CUDA build), or from an index of PyTorch's wheels:
#   docker build -t proxytrain .
#   docker build --build-arg TORCH_INDEX=<index of PyTorch's CPU wheels> -t proxytrain:cpu .
#   docker run --rm --gpus all -v "$PWD:/work" proxytrain sweep experiment=quickstart
# The store and all that is read or written lie in /work, texts of yours in /data. A user of its own (1000) runs it:
# where /work belongs to somebody else, add --user "$(id -u):$(id -g)".
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=""
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt /wheels/*.whl \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 proxytrain \
    && install -d -o proxytrain /work /data
USER 1000
WORKDIR /work
ENV OMP_NUM_THREADS=1 HF_HOME=/work/.huggingface WANDB_DIR=/work XDG_CACHE_HOME=/work/.cache
VOLUME ["/work", "/data"]
ENTRYPOINT ["proxytrain"]
CMD ["--help"]
