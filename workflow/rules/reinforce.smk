rule caption:
    """Several synthetic captions per image of a chunk, and a manifest that says how far they repeat the clean label."""
    input:
        settings="results/captions/{captions}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "chunks"),
        captioner=made_from("captioner", "model"),
    output:
        directory("results/captions/{captions}/chunks/{chunk}"),
    log:
        "results/logs/caption/{captions}/{chunk}.log",
    benchmark:
        "results/benchmarks/caption/{captions}/{chunk}.tsv"
    wildcard_constraints:
        captions=names("captions", lambda made: "captioner" in made.inputs),
    priority: 2  # as the captioner
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("caption", mem_mb=4000, runtime=30, gpu=REINFORCE_GPUS),
    params:
        device=DEVICE,
        code=code("clipdr.reinforce.captions"),
    shell:
        "python -m clipdr.reinforce caption --settings {input.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q}/{wildcards.chunk}.parquet --captioner {input.captioner:q} --device {params.device}"
        " --threads {threads} --output {output:q} 2>&1 | tee {log:q}"


rule reinforce:
    """Store augmentations and the teachers' embeddings of every view and caption, in the DataCompDR layout."""
    input:
        settings="results/reinforced/{reinforced}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "chunks"),
        captions=made_from("captions", "chunks/{chunk}"),
        teachers=made_from("teachers", "model"),
    output:
        directory("results/reinforced/{reinforced}/chunks/{chunk}"),
    log:
        "results/logs/reinforce/{reinforced}/{chunk}.log",
    benchmark:
        "results/benchmarks/reinforce/{reinforced}/{chunk}.tsv"
    wildcard_constraints:
        reinforced=names("reinforced", lambda made: "teachers" in made.inputs),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("reinforce", mem_mb=4000, runtime=60, gpu=REINFORCE_GPUS),
    params:
        stored=lambda wildcards, input: options(input, ("captions", "teachers")),
        device=DEVICE,
        code=code("clipdr.reinforce.embed"),
    shell:
        "python -m clipdr.reinforce embed --settings {input.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q}/{wildcards.chunk}.parquet {params.stored:q} --device {params.device}"
        " --threads {threads} --output {output:q} 2>&1 | tee {log:q}"


rule take_captions:
    """The synthetic captions that the pool's samples bring with them."""
    input:
        settings="results/captions/{captions}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "chunks"),
    output:
        directory("results/captions/{captions}/chunks/{chunk}"),
    log:
        "results/logs/caption/{captions}/{chunk}.log",
    benchmark:
        "results/benchmarks/caption/{captions}/{chunk}.tsv"
    wildcard_constraints:
        captions=names("captions", lambda made: "captioner" not in made.inputs),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("take_captions", mem_mb=4000, runtime=60),
    params:
        code=code("clipdr.reinforce.stored"),
    shell:
        "python -m clipdr.reinforce take-captions --settings {input.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q}/{wildcards.chunk}.parquet --output {output:q} 2>&1 | tee {log:q}"


rule take_reinforcements:
    """The stored augmentations and embeddings that the pool's samples bring with them."""
    input:
        settings="results/reinforced/{reinforced}/settings.json",
        pool=made_from("pool", "shards"),
        subset=made_from("subset", "chunks"),
    output:
        directory("results/reinforced/{reinforced}/chunks/{chunk}"),
    log:
        "results/logs/reinforce/{reinforced}/{chunk}.log",
    benchmark:
        "results/benchmarks/reinforce/{reinforced}/{chunk}.tsv"
    wildcard_constraints:
        reinforced=names("reinforced", lambda made: "teachers" not in made.inputs),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("take_reinforcements", mem_mb=4000, runtime=60),
    params:
        code=code("clipdr.reinforce.stored"),
    shell:
        "python -m clipdr.reinforce take-reinforcements --settings {input.settings:q} --pool {input.pool:q}"
        " --subset {input.subset:q}/{wildcards.chunk}.parquet --output {output:q} 2>&1 | tee {log:q}"


rule manifest:
    """One manifest for all chunks of captions, or of a dataset in one of its two forms."""
    input:
        lambda wildcards: chunks(wildcards.chunked),
    output:
        "results/{chunked}/manifest.json",
    log:
        "results/logs/manifest/{chunked}.log",
    benchmark:
        "results/benchmarks/manifest/{chunked}.tsv"
    localrule: True
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        number=lambda wildcards, input: len(input),
        code=code("clipdr.data.manifest"),
    shell:
        "python -m clipdr.data manifest --folder results/{wildcards.chunked:q}/chunks --chunks {params.number}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule storage:
    """Measure the bytes of what each row of a table stores of a sample."""
    input:
        settings="results/storage/{storage}/settings.json",
        reinforced=made_from("reinforced", "manifest.json"),
    output:
        "results/storage/{storage}/storage.json",
    log:
        "results/logs/storage/{storage}.log",
    benchmark:
        "results/benchmarks/storage/{storage}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("storage", mem_mb=4000, runtime=30),
    params:
        reinforced=lambda wildcards, input: folders(input.reinforced),
        code=code("clipdr.reinforce.storage"),
    shell:
        "python -m clipdr.reinforce storage --settings {input.settings:q} --reinforced {params.reinforced:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule views:
    """Replay the stored views once for all runs that share them."""
    input:
        settings="results/views/{views}/settings.json",
        reinforced=made_from("reinforced", "manifest.json"),
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
        **asks("views", mem_mb=4000, runtime=30),
    params:
        reinforced=lambda wildcards, input: folders(input.reinforced),
        code=code("clipdr.data.views"),
    shell:
        "python -m clipdr.data views --settings {input.settings:q} --reinforced {params.reinforced:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule rows:
    """Bring a chunk into the form of which a stream reads single embeddings, and check all of it on the way."""
    input:
        reinforced=made_from("reinforced", "chunks/{chunk}"),
    output:
        directory("results/rows/{rows}/chunks/{chunk}"),
    log:
        "results/logs/rows/{rows}/{chunk}.log",
    benchmark:
        "results/benchmarks/rows/{rows}/{chunk}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("rows", mem_mb=4000, runtime=60),
    params:
        code=code("clipdr.data.rows"),
    shell:
        "python -m clipdr.data rows --reinforced {input.reinforced:q} --output {output:q} 2>&1 | tee {log:q}"
