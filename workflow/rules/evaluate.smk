rule evaluate:
    """One process per run over the whole suite."""
    input:
        settings="results/eval/{eval}/settings.json",
        model=made_from("run", "model"),
        tasks=tasks,
    output:
        "results/eval/{eval}/records.jsonl",
    log:
        "results/logs/evaluate/{eval}.log",
    benchmark:
        "results/benchmarks/evaluate/{eval}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("clipdr.evaluate.suite"),
    shell:
        "python -m clipdr.evaluate --model {input.model:q} --tasks {input.tasks:q} --settings {input.settings:q}"
        " --threads {threads} --output {output:q} 2>&1 | tee {log:q}"
