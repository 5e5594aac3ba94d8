# One static binary and nothing else. `make image` builds the binary, then this, with whatever can build images here.
FROM scratch
COPY headgate /headgate
USER 65532:65532
ENTRYPOINT ["/headgate"]
CMD ["run"]
LABEL org.opencontainers.image.title="Headgate" \
      org.opencontainers.image.description="A Kubernetes ingress controller and gateway operator for the Gateway API" \
      org.opencontainers.image.licenses="Apache-2.0"
