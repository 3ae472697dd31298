rule caption:
    """Several synthetic captions per image, and a manifest that says how far they repeat the clean label."""
    input:
        pool="results/pool/<pool>",
        subset="results/subset/<pool>/{dataset}.parquet",
        captioner="results/zoo/<pool>/captioner",
    output:
        captions="results/captions/<pool>/{dataset}.parquet",
        manifest="results/captions/<pool>/{dataset}.json",
    log:
        "results/logs/caption/<pool>/{dataset}.log",
    benchmark:
        "results/benchmarks/caption/<pool>/{dataset}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=as_json(SCALE["captions"]),
        code=code("clipdr.reinforce.captions"),
    shell:
        "python -m clipdr.reinforce caption --settings {params.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q} --captioner {input.captioner:q} --threads {threads} --output {output.captions:q}"
        " 2>&1 | tee {log:q}"


rule reinforce:
    """Store augmentations and the teachers' embeddings of every view and caption, in the DataCompDR layout."""
    input:
        pool="results/pool/<pool>",
        subset="results/subset/<pool>/{dataset}.parquet",
        captions="results/captions/<pool>/{dataset}.parquet",
        teachers=expand("results/zoo/<pool>/{teacher}", teacher=SCALE["zoo"]["teachers"]),
    output:
        directory("results/reinforced/<pool>/{dataset}-{augmentation}"),
    log:
        "results/logs/reinforce/<pool>/{dataset}-{augmentation}.log",
    benchmark:
        "results/benchmarks/reinforce/<pool>/{dataset}-{augmentation}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=augmentation_settings,
        code=code("clipdr.reinforce.embed"),
    shell:
        "python -m clipdr.reinforce embed --settings {params.settings:q} --pool {input.pool:q} --subset {input.subset:q}"
        " --captions {input.captions:q} --teachers {input.teachers:q} --threads {threads} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule views:
    """Replay the stored views once for all runs that share them."""
    input:
        "results/reinforced/<pool>/{dataset}-{augmentation}",
    output:
        directory("results/views/<pool>/{dataset}-{augmentation}-{side}px"),
    log:
        "results/logs/views/<pool>/{dataset}-{augmentation}-{side}px.log",
    benchmark:
        "results/benchmarks/views/<pool>/{dataset}-{augmentation}-{side}px.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("clipdr.reinforce.materialise"),
    shell:
        "python -m clipdr.reinforce views --reinforced {input:q} --size {wildcards.side} --threads {threads} --output {output:q}"
        " 2>&1 | tee {log:q}"
