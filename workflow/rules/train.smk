rule train:
    """Train one student. A run is named by its settings, so experiments that ask for the same one share it."""
    input:
        settings="results/runs/{runs}/settings.json",
        views=made_from("views", "arrays"),
        rows=made_from("rows", "manifest.json"),
        tokenizer=made_from("tokenizer", "tokenizer"),
        init=made_from("init", "model"),
        teachers=made_from("teachers", "model"),
        captioner=made_from("captioner", "model"),
        text_tower=made_from("text_tower", "model"),
        corpus=made_from("corpus", "corpus"),
        tasks=watched_tasks,
    output:
        directory("results/runs/{runs}/model"),
    log:
        "results/logs/train/{runs}.log",
    benchmark:
        "results/benchmarks/train/{runs}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: train_threads
    resources:
        **train_resources(),
        # No parameter, for how a run is started changes nothing of it.
        start=start,
    params:
        data=lambda wildcards, input: folders([*input.views, *input.rows]),
        models=lambda wildcards, input: options(
            input, ("tokenizer", "init", "teachers", "captioner", "text_tower", "corpus", "tasks")
        ),
        code=train_code,
    shell:
        "{resources.start} clipdr.train --settings {input.settings:q} --data {params.data:q} {params.models:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule costs:
    """Time a few steps of each of several runs, in turns. One thread is measured, on a machine left alone: see latency."""
    input:
        settings="results/costs/{costs}/settings.json",
        data=costs_data,
        tokenizer=made_from("tokenizer", "tokenizer"),
        teachers=made_from("teachers", "model"),
        captioner=made_from("captioner", "model"),
    output:
        "results/costs/{costs}/costs.json",
    log:
        "results/logs/costs/{costs}.log",
    benchmark:
        "results/benchmarks/costs/{costs}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: workflow.resource_settings.cores or 1
    resources:
        **asks("costs", mem_mb=4000, runtime=60),
    params:
        data=lambda wildcards, input: folders(input.data),
        models=lambda wildcards, input: options(input, ("tokenizer", "teachers", "captioner")),
        code=costs_code,
    shell:
        "python -m clipdr.train.cost --settings {input.settings:q} --data {params.data:q} {params.models:q}"
        " --output {output:q} 2>&1 | tee {log:q}"
