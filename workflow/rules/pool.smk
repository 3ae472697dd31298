rule fetch:
    """Install the locked packages that hold the drawings and the words."""
    input:
        package="config/pools/{packages}/package.json",
        lock="config/pools/{packages}/package-lock.json",
    output:
        directory("results/sources/{packages}"),
    log:
        "results/logs/fetch/{packages}.log",
    benchmark:
        "results/benchmarks/fetch/{packages}.tsv"
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        **asks("fetch", mem_mb=2000, runtime=10),
    params:
        packages=subpath(input.lock, parent=True),
        code=code("clipdr.pool.fetch"),
    shell:
        "python -m clipdr.pool fetch --packages {params.packages:q} --output {output:q} 2>&1 | tee {log:q}"


rule pool:
    """Write the training pool and the held-out tasks."""
    input:
        settings="results/pool/{pool}/settings.json",
        sources=sources,
    output:
        pool=directory("results/pool/{pool}/shards"),
        tasks=directory("results/pool/{pool}/tasks"),
    log:
        "results/logs/pool/{pool}.log",
    benchmark:
        "results/benchmarks/pool/{pool}.tsv"
    wildcard_constraints:
        pool=names("pool", lambda made: not fetched(made)),
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        **asks("pool", mem_mb=4000, runtime=20),
    params:
        code=pool_code,
    shell:
        "python -m clipdr.pool build --settings {input.settings:q} --sources {input.sources:q} --pool {output.pool:q}"
        " --tasks {output.tasks:q} 2>&1 | tee {log:q}"


rule subset:
    """Sample pairs uniformly, in chunks; smaller subsets of a seed lie inside larger ones."""
    input:
        settings="results/subset/{subset}/settings.json",
        pool=made_from("pool", "shards"),
    output:
        directory("results/subset/{subset}/chunks"),
    log:
        "results/logs/subset/{subset}.log",
    benchmark:
        "results/benchmarks/subset/{subset}.tsv"
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        **asks("subset", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.data.subset"),
    shell:
        "python -m clipdr.data subset --settings {input.settings:q} --index {input.pool:q}/index.parquet"
        " --output {output:q} 2>&1 | tee {log:q}"
