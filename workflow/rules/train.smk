rule train:
    """Train one student. A run is named by its settings, so experiments that ask for the same one share it."""
    input:
        views=run_views,
        tokenizer="results/zoo/<pool>/tokenizer",
    output:
        settings="results/runs/{run}/settings.yaml",
        checkpoint="results/runs/{run}/checkpoint.pt",
        log="results/runs/{run}/log.jsonl",
        model=directory("results/runs/{run}/model"),
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=run_settings,
        run=subpath(output.settings, parent=True),
        code=code("clipdr.train.run"),
    shell:
        "python -m clipdr.train --settings {params.settings:q} --views {input.views:q} --tokenizer {input.tokenizer:q}"
        " --threads {threads} --output {params.run:q} 2>&1 | tee {log:q}"
