rule tokenizer:
    """The byte-pair tokenizer that all models of the miniature share."""
    input:
        "results/pool/<pool>",
    output:
        directory("results/zoo/<pool>/tokenizer"),
    log:
        "results/logs/zoo/<pool>/tokenizer.log",
    benchmark:
        "results/benchmarks/zoo/<pool>/tokenizer.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        vocab_size=SCALE["zoo"]["vocab_size"],
        code=code("clipdr.zoo.tokenizer"),
    shell:
        "python -m clipdr.zoo tokenizer --pool {input:q} --vocab-size {params.vocab_size} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule member:
    """Train a teacher or the captioner on the pool, saved as open_clip loads it."""
    input:
        pool="results/pool/<pool>",
        tokenizer="results/zoo/<pool>/tokenizer",
    output:
        directory("results/zoo/<pool>/{member}"),
    log:
        "results/logs/zoo/<pool>/{member}.log",
    benchmark:
        "results/benchmarks/zoo/<pool>/{member}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=member_settings,
        config=member_config,
        code=code("clipdr.zoo.train"),
    shell:
        "python -m clipdr.zoo member --settings {params.settings:q} --config {params.config:q} --pool {input.pool:q}"
        " --tokenizer {input.tokenizer:q} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"
