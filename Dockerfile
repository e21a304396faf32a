# Alluvium's image.
#
#   docker build -t alluvium:local .
#   docker build -t alluvium:local --target prebuilt -f Dockerfile FOLDER    FOLDER holds a binary named `alluvium`,
#                                                                            built for the glibc of RUNTIME_IMAGE
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# For librdkafka and the libraries that are linked into the binary with it.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make perl \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the layer, so the binary is taken out of them.
RUN --mount=type=cache,target=/src/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --profile dist --locked --bin alluvium \
 && cp target/dist/alluvium /usr/local/bin/alluvium

FROM ${RUNTIME_IMAGE} AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/alluvium alluvium \
 && install -d -o alluvium -g alluvium /lake /etc/alluvium
USER alluvium
# `alluvium` reads alluvium.toml of the folder it runs in.
WORKDIR /etc/alluvium
EXPOSE 8090
ENTRYPOINT ["/usr/local/bin/alluvium"]
CMD ["run"]

FROM runtime AS prebuilt
COPY --chmod=755 alluvium /usr/local/bin/alluvium

FROM runtime AS alluvium
COPY --from=build /usr/local/bin/alluvium /usr/local/bin/alluvium
