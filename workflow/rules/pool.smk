rule fetch:
    """Install the locked packages that hold the drawings and the words."""
    input:
        package=f"{SCALE['pool']['packages']}/package.json",
        lock=f"{SCALE['pool']['packages']}/package-lock.json",
    output:
        directory("results/sources/<pool>"),
    log:
        "results/logs/fetch/<pool>.log",
    benchmark:
        "results/benchmarks/fetch/<pool>.tsv"
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        packages=subpath(input.lock, parent=True),
        code=code("clipdr.pool.fetch"),
    shell:
        "python -m clipdr.pool fetch --packages {params.packages:q} --output {output:q} 2>&1 | tee {log:q}"


rule pool:
    """Draw the training pool and the held-out tasks."""
    input:
        "results/sources/<pool>",
    output:
        pool=directory("results/pool/<pool>"),
        tasks=directory("results/tasks/<pool>"),
    log:
        "results/logs/pool/<pool>.log",
    benchmark:
        "results/benchmarks/pool/<pool>.tsv"
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        settings=as_json(SCALE["pool"]),
        code=code("clipdr.pool.build"),
    shell:
        "python -m clipdr.pool build --settings {params.settings:q} --sources {input:q} --pool {output.pool:q}"
        " --tasks {output.tasks:q} 2>&1 | tee {log:q}"


rule subset:
    """Sample pairs uniformly; smaller subsets of a seed lie inside larger ones."""
    input:
        "results/pool/<pool>",
    output:
        "results/subset/<pool>/{dataset}.parquet",
    log:
        "results/logs/subset/<pool>/{dataset}.log",
    benchmark:
        "results/benchmarks/subset/<pool>/{dataset}.tsv"
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        size=lambda wildcards: subset_settings(wildcards)["size"],
        seed=lambda wildcards: subset_settings(wildcards)["seed"],
        code=code("clipdr.data.subset"),
    shell:
        "python -m clipdr.data.subset --index {input:q}/index.parquet --size {params.size} --seed {params.seed}"
        " --output {output:q} 2>&1 | tee {log:q}"
