rule evaluate:
    """One process over a run's share of the suite, which is all of it unless the scale has several jobs."""
    input:
        settings="results/eval/{eval}/settings.json",
        model=made_from("run", "model"),
        tasks=tasks,
    output:
        directory("results/eval/{eval}/scores/{chunk}"),
    log:
        "results/logs/evaluate/{eval}/{chunk}.log",
    benchmark:
        "results/benchmarks/evaluate/{eval}/{chunk}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        device=SCALE["evaluation"].get("device", "cpu"),
        code=code("clipdr.evaluate.suite"),
    shell:
        "python -m clipdr.evaluate suite --model {input.model:q} --tasks {input.tasks:q} --settings {input.settings:q}"
        " --part {wildcards.chunk} --devices {params.device} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"
