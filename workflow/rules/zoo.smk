rule tokenizer:
    """The byte-pair tokenizer that all models of the miniature share."""
    input:
        settings="results/tokenizer/{tokenizer}/settings.json",
        pool=made_from("pool", "shards"),
    output:
        directory("results/tokenizer/{tokenizer}/tokenizer"),
    log:
        "results/logs/tokenizer/{tokenizer}.log",
    benchmark:
        "results/benchmarks/tokenizer/{tokenizer}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code("clipdr.zoo.tokenizer"),
    shell:
        "python -m clipdr.zoo tokenizer --settings {input.settings:q} --pool {input.pool:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule member:
    """Train a teacher or the captioner on the pool, saved as open_clip loads it."""
    input:
        settings="results/zoo/{zoo}/settings.json",
        pool=made_from("pool", "shards"),
        tokenizer=made_from("tokenizer", "tokenizer"),
    output:
        directory("results/zoo/{zoo}/model"),
    log:
        "results/logs/zoo/{zoo}.log",
    benchmark:
        "results/benchmarks/zoo/{zoo}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code("clipdr.zoo.train"),
    shell:
        "python -m clipdr.zoo member --settings {input.settings:q} --pool {input.pool:q}"
        " --tokenizer {input.tokenizer:q} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"
