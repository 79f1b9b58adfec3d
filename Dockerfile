# Builds with Docker BuildKit and with `buildah bud --format docker`; `make image` picks whichever this machine has.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# What builds the image and stays out of it. pip.conf and ca.pem are optional build secrets, for machines that
# reach packages through an index or certificates of their own.
FROM ${BASE} AS tools
WORKDIR /build
COPY constraints.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install -qq --no-cache-dir -c constraints.txt hatchling

# The dependency list alone, so that another change of pyproject.toml does not install torch again.
FROM ${BASE} AS requirements
COPY pyproject.toml /
RUN python3 -c "import tomllib; print(*tomllib.load(open('/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /requirements.txt

# Bytecode is compiled here, and never checked against its source again: the image's files do not change.
# What goes is of use only where something is compiled or tested, and Pillow's decoders of formats that foldserve
# refuses, fonts, colour profiles and Tk with them: nobody need keep those free of flaws. Debug symbols go, too.
FROM tools AS dependencies
# An index to take torch from, in place of the configured one: it chooses between CPU and CUDA builds.
ARG TORCH_INDEX=
COPY scripts/strip_symbols.py ./
COPY --from=requirements /requirements.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3 -m venv --without-pip /opt/foldserve \
    && install="/opt/tools/bin/pip --python /opt/foldserve/bin/python3 install -qq --no-cache-dir --no-compile -c constraints.txt" \
    && $install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && $install -r requirements.txt \
    && cd /opt/foldserve/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test torch/bin/protoc* torch/bin/test_* numpy/f2py numpy/distutils \
    && find . -depth -type d -name tests -exec rm -rf {} + \
    && find . -type f -not -path './torch/*' \( -name '*.[ach]' -o -name '*.[ch]pp' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \) -delete \
    && rm -f PIL/_avif.* PIL/_webp.* PIL/_imagingft.* PIL/_imagingcms.* PIL/_imagingtk.* \
        pillow.libs/libavif* pillow.libs/libwebpdemux* pillow.libs/libwebpmux* pillow.libs/libfreetype* \
        pillow.libs/libharfbuzz* pillow.libs/libbrotli* pillow.libs/liblcms2* \
    && find . -type f -not -path './torch/*' -name '*.so*' -exec python3 /build/strip_symbols.py {} + \
    && find /opt/foldserve/bin -type f -not -name 'python*' -delete \
    && /opt/foldserve/bin/python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x torch/testing/_internal .

FROM tools AS package
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY model_store /image/models
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin foldserve \
    && mkdir -p /image/etc && cp /etc/passwd /etc/group /image/etc/ \
    && python3 -m venv --without-pip /opt/foldserve \
    && /opt/tools/bin/pip wheel -qq --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && /opt/tools/bin/pip --python /opt/foldserve/bin/python3 install -qq --no-deps --no-index --no-compile --prefix /image/opt/foldserve /wheel/*.whl \
    && /opt/foldserve/bin/python3 -m compileall -q -s /image --invalidation-mode unchecked-hash /image/opt/foldserve/lib \
    && chmod -R a+rX,go-w /image

# No RUN in this stage, and the files last: nothing of the build is left behind, and a builder that copies the whole
# file system for each step copies little.
FROM ${BASE}
ARG BASE
ARG VERSION=
LABEL org.opencontainers.image.title="foldserve" \
      org.opencontainers.image.description="Serves convolutional networks with every BatchNorm folded, proven, shown and watched." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE}"
ENV PATH=/opt/foldserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FOLDSERVE_HOST=0.0.0.0 \
    FOLDSERVE_MODEL_STORE=/models
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('FOLDSERVE_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
USER 10001:10001
ENTRYPOINT ["foldserve"]
CMD ["serve"]
COPY --from=dependencies /opt/foldserve /opt/foldserve
COPY --from=package /image /
