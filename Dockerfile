# The sidecar and nothing else: one static binary, no shell, not root. `just image` builds both.
#
#   scripts/image.sh            builds target/image/postern and postern:dev
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="postern" \
      org.opencontainers.image.description="A gRPC sidecar authorizer with the exact semantics of Azure RBAC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The roots of trust for https sources.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY postern /postern
USER 65532:65532
ENTRYPOINT ["/postern"]
CMD ["serve"]
