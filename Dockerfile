# One image for all roles: `docker build -t dwell:local .`, then `docker run dwell:local serve --config …`.
ARG RUST_VERSION=1.95.0
ARG DEBIAN_RELEASE=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN_RELEASE} AS build
# librdkafka (C and C++, zlib), SQLite and the cryptography library are compiled with the binary.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The image's toolchain is the pinned one; rust-toolchain.toml would fetch the developers' components as well.
ARG RUST_VERSION
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_INCREMENTAL=0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package dwell --bin dwell \
    && install -D --strip target/release/dwell /out/dwell

FROM debian:${DEBIAN_RELEASE}-slim
# Certificates for object stores over HTTPS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/dwell --create-home dwell
COPY --from=build /out/dwell /usr/local/bin/dwell
COPY --chmod=0755 deploy/container/dwell-ready /usr/local/bin/dwell-ready
USER 10001
WORKDIR /var/lib/dwell
# On shared engines this folder holds only what does not outlive the process; embedded, it is everything: mount it then.
ENV DWELL_DATA_DIR=/var/lib/dwell
# 7070: API (roles ingest and serve, up). 7071: health and metrics, for operators and their machines only.
EXPOSE 7070 7071
ENTRYPOINT ["dwell"]
CMD ["--help"]
