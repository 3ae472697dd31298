rule caption:
    """Several synthetic captions per image, and a manifest that says how far they repeat the clean label."""
    input:
        settings="results/captions/{captions}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "subset.parquet"),
        captioner=made_from("captioner", "model"),
    output:
        captions="results/captions/{captions}/captions.parquet",
        manifest="results/captions/{captions}/captions.json",
    log:
        "results/logs/caption/{captions}.log",
    benchmark:
        "results/benchmarks/caption/{captions}.tsv"
    priority: 2  # as the captioner
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("clipdr.reinforce.captions"),
    shell:
        "python -m clipdr.reinforce caption --settings {input.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q} --captioner {input.captioner:q} --threads {threads} --output {output.captions:q}"
        " 2>&1 | tee {log:q}"


rule reinforce:
    """Store augmentations and the teachers' embeddings of every view and caption, in the DataCompDR layout."""
    input:
        settings="results/reinforced/{reinforced}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "subset.parquet"),
        captions=made_from("captions", "captions.parquet"),
        teachers=made_from("teachers", "model"),
    output:
        directory("results/reinforced/{reinforced}/shards"),
    log:
        "results/logs/reinforce/{reinforced}.log",
    benchmark:
        "results/benchmarks/reinforce/{reinforced}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        stored=lambda wildcards, input: options(input, ("captions", "teachers")),
        code=code("clipdr.reinforce.embed"),
    shell:
        "python -m clipdr.reinforce embed --settings {input.settings:q} --pool {input.pool:q} --subset {input.subset:q}"
        " {params.stored:q} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"


rule views:
    """Replay the stored views once for all runs that share them."""
    input:
        settings="results/views/{views}/settings.json",
        reinforced=made_from("reinforced", "shards"),
    output:
        directory("results/views/{views}/arrays"),
    log:
        "results/logs/views/{views}.log",
    benchmark:
        "results/benchmarks/views/{views}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("clipdr.data.views"),
    shell:
        "python -m clipdr.data views --settings {input.settings:q} --reinforced {input.reinforced:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule rows:
    """Bring a dataset into the form of which a stream reads single embeddings, and check all of it on the way."""
    input:
        settings="results/rows/{rows}/settings.json",
        reinforced=made_from("reinforced", "shards"),
    output:
        directory("results/rows/{rows}/shards"),
    log:
        "results/logs/rows/{rows}.log",
    benchmark:
        "results/benchmarks/rows/{rows}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code("clipdr.data.rows"),
    shell:
        "python -m clipdr.data rows --reinforced {input.reinforced:q} --output {output:q} 2>&1 | tee {log:q}"
