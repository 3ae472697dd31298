# Texts that do not belong to the images (DIME-FM): sentences, their embeddings, and which of them are learned from.


rule sentences:
    """Sentences to choose from."""
    input:
        settings="results/sentences/{sentences}/settings.json",
        source=sentences_source,
    output:
        directory("results/sentences/{sentences}/sentences"),
    log:
        "results/logs/sentences/{sentences}.log",
    benchmark:
        "results/benchmarks/sentences/{sentences}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("sentences", mem_mb=4000, runtime=60),
    params:
        source=sentences_path,
        code=code("clipdr.corpus.sentences"),
    shell:
        "python -m clipdr.corpus sentences --settings {input.settings:q} --source {params.source:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule embed:
    """What a teacher makes of sentences, or of the images of a subset as they are."""
    input:
        teacher=made_from("model", "model"),
        sentences=made_from("sentences", "sentences"),
        subset=made_from("subset", "chunks"),
        pool=made_from("pool", "shards"),
    output:
        directory("results/embedded/{embedded}/table"),
    log:
        "results/logs/embed/{embedded}.log",
    benchmark:
        "results/benchmarks/embed/{embedded}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("embed", mem_mb=4000, runtime=120, gpu=REINFORCE_GPUS),
    params:
        name=lambda wildcards: ARTIFACTS[f"embedded/{wildcards.embedded}"].settings["teacher"],
        what=lambda wildcards, input: options(input, ("sentences", "subset", "pool")),
        device=DEVICE,
        code=code("clipdr.corpus.embed"),
    shell:
        "python -m clipdr.corpus embed --teacher {input.teacher:q} --name {params.name:q} {params.what:q}"
        " --device {params.device} --output {output:q} 2>&1 | tee {log:q}"


rule corpus:
    """Choose sentences: all, some at random, the nearest to images, or one for each image (DIME-FM, Algorithm 1)."""
    input:
        settings="results/corpora/{corpora}/settings.json",
        sentences=made_from("sentences", "sentences"),
        texts=made_from("texts", "table"),
        images=made_from("images", "table"),
        like=made_from("like", "corpus"),
    output:
        directory("results/corpora/{corpora}/corpus"),
    log:
        "results/logs/corpus/{corpora}.log",
    benchmark:
        "results/benchmarks/corpus/{corpora}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("corpus", mem_mb=8000, runtime=120),
    params:
        made_of=lambda wildcards, input: options(input, ("sentences", "texts", "images", "like")),
        code=code("clipdr.corpus.select"),
    shell:
        "python -m clipdr.corpus build --settings {input.settings:q} {params.made_of:q} --threads {threads}"
        " --output {output:q} 2>&1 | tee {log:q}"
