# One static binary and its configuration, and nothing else.
#
#     docker build --build-arg VERSION=v1.2.3 -t warder .
#
# With a binary that was built before, as DIR/out/warder beside an empty
# directory DIR/out/data, the first stage is left out:
#
#     docker build --build-context build=DIR -t warder .
FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
	mkdir -p /out/data && \
	CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -pgo=deploy/warder.pgo \
		-ldflags "-s -w -X github.com/caddyserver/caddy/v2.CustomVersion=$VERSION" \
		-o /out/warder ./cmd/warder

# Time zones and certificate authorities are in the binary.
FROM scratch
COPY --from=build --chmod=755 /out/warder /usr/bin/warder
COPY --chmod=644 deploy/Caddyfile /etc/warder/Caddyfile
# A named volume takes over owner and mode.
COPY --from=build --chown=65532:65532 /out/data /data
ENV PATH=/usr/bin \
	XDG_DATA_HOME=/data \
	XDG_CONFIG_HOME=/data/config \
	XDG_CACHE_HOME=/data/cache \
	TMPDIR=/data \
	CADDY_ADMIN=unix//data/admin.sock
# By number: Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 8082
STOPSIGNAL SIGTERM
# A second process within the container's limits: see docs/deploy.md.
HEALTHCHECK --interval=30s --timeout=20s --start-period=10s CMD ["warder", "health"]
ENTRYPOINT ["warder"]
CMD ["run", "--config", "/etc/warder/Caddyfile"]
