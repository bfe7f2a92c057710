# The sidecar's image: the static program, Compose and CA certificates, on nothing else.
#
# Three stages say what goes in:
#
#   binary   /image/processgit-updater
#   compose  /docker-compose
#   system   /image/etc/ssl/…: the CA certificates, and the libraries of the other two if they need any
#
# As it stands it builds from public images, for a pipeline: `docker build .`. Each stage can be replaced by a
# folder (`--build-context binary=FOLDER`), and with all three replaced nothing is fetched: so does `./image`.

FROM rust:1.95-bookworm AS binary
WORKDIR /src
COPY . .
RUN . ci/static.sh && cargo build --locked --release --bin processgit-updater --target "$target" \
 && install -D "target/$target/release/processgit-updater" /image/processgit-updater

FROM docker/compose-bin:v2.40.3 AS compose

FROM debian:bookworm AS system
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=system /image /
COPY --from=compose /docker-compose /usr/libexec/docker/cli-plugins/docker-compose
COPY --from=binary /image /
# So that `docker compose exec updater processgit-updater status` finds it, and registry credentials are
# looked for in /root/.docker/config.json. Compose wants to write a folder of buildx's; /dev/shm can be written to
# by any user, also when the root file system is read-only.
ENV PATH=/ HOME=/root BUILDX_CONFIG=/dev/shm/buildx
EXPOSE 9000
STOPSIGNAL SIGTERM
# The first probes come quickly: whoever waits for a healthy sidecar notices it at once.
HEALTHCHECK --interval=30s --timeout=6s --start-period=15s --start-interval=250ms --retries=3 \
    CMD ["/processgit-updater", "healthz"]
ENTRYPOINT ["/processgit-updater"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="processgit-updater" \
      org.opencontainers.image.description="Updates a Docker Compose application as one transaction over image, configuration and data" \
      org.opencontainers.image.source="https://github.com/Algomation-AI/processgit-updater" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
