rule train:
    """Train one student. A run is named by its settings, so experiments that ask for the same one share it."""
    input:
        settings="results/runs/{runs}/settings.json",
        views=made_from("views", "arrays"),
        shards=made_from("reinforced", "shards"),
        tokenizer=made_from("tokenizer", "tokenizer"),
        init=made_from("init", "model"),
    output:
        directory("results/runs/{runs}/model"),
    log:
        "results/logs/train/{runs}.log",
    benchmark:
        "results/benchmarks/train/{runs}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: processes
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        python=python,
        tokenizer=lambda wildcards, input: ["--tokenizer", *input.tokenizer] if input.tokenizer else [],
        init=lambda wildcards, input: ["--init", *input.init] if input.init else [],
        code=train_code,
    shell:
        "{params.python} clipdr.train --settings {input.settings:q} --data {input.views:q} {input.shards:q}"
        " {params.tokenizer:q} {params.init:q} --output {output:q} 2>&1 | tee {log:q}"
