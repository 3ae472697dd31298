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
        **asks("tokenizer", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.zoo.tokenizer"),
    shell:
        "python -m clipdr.zoo tokenizer --settings {input.settings:q} --pool {input.pool:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule teacher:
    """Train a teacher on the pool, saved as open_clip loads it."""
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
    wildcard_constraints:
        zoo=rf"(?!captioner-)({ZOO['trained']})",
    # Before students that need no teacher, which fill the core that the last of three members leaves idle.
    priority: 1
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("teacher", mem_mb=4000, runtime=60),
    params:
        code=code("clipdr.zoo.train"),
    shell:
        "python -m clipdr.zoo member --settings {input.settings:q} --pool {input.pool:q}"
        " --tokenizer {input.tokenizer:q} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"


use rule teacher as captioner with:
    wildcard_constraints:
        zoo=rf"(?=captioner-)({ZOO['trained']})",
    priority: 2  # all students wait for captions, some of them for nothing else of the zoo


rule published:
    """Get published weights as a model folder, like those that are trained here."""
    input:
        settings="results/zoo/{zoo}/settings.json",
        file=lambda wildcards: ARTIFACTS[f"zoo/{wildcards.zoo}"].settings.get("file", []),
    output:
        directory("results/zoo/{zoo}/model"),
    log:
        "results/logs/zoo/{zoo}.log",
    benchmark:
        "results/benchmarks/zoo/{zoo}.tsv"
    wildcard_constraints:
        zoo=ZOO["published"],
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("published", mem_mb=16000, runtime=60),
    params:
        # Where the file is found changes nothing of what is made.
        weights=lambda wildcards: ["--weights", SCALE["zoo"]["weights"]] if "weights" in SCALE["zoo"] else [],
        code=code("clipdr.zoo.published"),
    shell:
        "python -m clipdr.zoo published --settings {input.settings:q} {params.weights:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


# Files that the scale names and no rule makes: weights, and sentences.
BY_HAND = sorted({made.settings["file"] for made in ARTIFACTS.values() if "file" in made.settings})


rule file_by_hand:
    """A file that nobody may hand out, or that is the user's own: the job stops, and says where it belongs."""
    output:
        "{file}",
    log:
        "results/logs/file_by_hand/{file}.log",
    benchmark:
        "results/benchmarks/file_by_hand/{file}.tsv"
    wildcard_constraints:
        file="|".join(map(re.escape, BY_HAND)) or "none",
    localrule: True
    conda:
        "../../envs/shell.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        scale=CONFIG["scale"],
    shell:
        "printf 'error: %s is not there; scale %s reads it: put it there, or name another file\\n' {output:q} {params.scale:q}"
        " 2>&1 | tee {log:q}; exit 1"
