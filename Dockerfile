# The locked environment as a container: `docker build --tag clipdr .`, then `docker run clipdr --cores all`.
FROM python:3.11-bookworm
WORKDIR /clipdr
COPY . .
RUN make .venv/.installed
ENTRYPOINT [".venv/bin/snakemake"]
