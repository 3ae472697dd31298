rule evaluate:
    """One process per run over the whole suite."""
    input:
        model="results/runs/{run}/model",
        tasks="results/tasks/<pool>",
        suite=ancient(f"config/suites/{SUITE}.yaml"),
    output:
        f"results/runs/{{run}}/eval/{SUITE}.jsonl",
    log:
        f"results/logs/evaluate/{{run}}-{SUITE}.log",
    benchmark:
        f"results/benchmarks/evaluate/{{run}}-{SUITE}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        tasks=as_json(SUITE_TASKS),
        batch_size=SCALE["evaluation"]["batch_size"],
        code=code("clipdr.evaluate.suite"),
    shell:
        "python -m clipdr.evaluate --model {input.model:q} --tasks {input.tasks:q} --suite {input.suite:q}"
        " --batch-size {params.batch_size} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"
