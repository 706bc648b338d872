# The sidecar and nothing else: one static binary, no shell, not root. `just image` builds both.
#
#   scripts/static.sh           builds target/image/postern
#   scripts/image.sh            does that and makes the image postern:dev
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="postern" \
      org.opencontainers.image.description="A gRPC sidecar authorizer with the exact semantics of Azure RBAC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The binary, and the roots of trust for https sources.
COPY root/ /
USER 65532:65532
ENTRYPOINT ["/postern"]
CMD ["serve"]
