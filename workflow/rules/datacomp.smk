# A pool of kind `datacomp`: published reinforcements, or addresses alone, joined with the images that lie there.


rule download_reinforcements:
    """A run of shards with addresses: published ones, with captions, augmentations and embeddings, or from metadata."""
    input:
        settings="results/pool/{pool}/settings.json",
    output:
        directory("results/pool/{pool}/reinforcements/{chunk}"),
    log:
        "results/logs/download_reinforcements/{pool}/{chunk}.log",
    benchmark:
        "results/benchmarks/download_reinforcements/{pool}/{chunk}.tsv"
    wildcard_constraints:
        pool=names("pool", fetched),
    conda:
        "../../envs/download.yaml"
    threads: 1
    resources:
        **asks("download_reinforcements", mem_mb=4000, runtime=600),
    params:
        code=code("clipdr.pool.reinforcements", "clipdr.pool.addresses"),
    shell:
        '"$DOWNLOADER" -m clipdr.pool reinforcements --settings {input.settings:q} --chunk {wildcards.chunk}'
        " --output {output:q} 2>&1 | tee {log:q}"


rule download_images:
    """Fetch the images of a run of shards from their addresses; those that are gone are counted and listed."""
    input:
        settings="results/pool/{pool}/settings.json",
        reinforcements="results/pool/{pool}/reinforcements/{chunk}",
    output:
        directory("results/pool/{pool}/images/{chunk}"),
    log:
        "results/logs/download_images/{pool}/{chunk}.log",
    benchmark:
        "results/benchmarks/download_images/{pool}/{chunk}.tsv"
    wildcard_constraints:
        pool=names("pool", fetched),
    conda:
        "../../envs/download.yaml"
    threads: 2
    resources:
        **asks("download_images", mem_mb=8000, runtime=1440),
    params:
        code=code("clipdr.pool.images"),
    shell:
        '"$DOWNLOADER" -m clipdr.pool images --settings {input.settings:q}'
        " --reinforcements {input.reinforcements:q} --output {output:q} 2>&1 | tee {log:q}"


rule join:
    """Join a run of shards with its images; what is missing, changed or resized is counted and listed."""
    input:
        settings="results/pool/{pool}/settings.json",
        reinforcements="results/pool/{pool}/reinforcements/{chunk}",
        images="results/pool/{pool}/images/{chunk}",
    output:
        directory("results/pool/{pool}/chunks/{chunk}"),
    log:
        "results/logs/join/{pool}/{chunk}.log",
    benchmark:
        "results/benchmarks/join/{pool}/{chunk}.tsv"
    wildcard_constraints:
        pool=names("pool", fetched),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("join", mem_mb=4000, runtime=120),
    params:
        code=code("clipdr.reinforce.join"),
    shell:
        "python -m clipdr.reinforce join --settings {input.settings:q} --reinforcements {input.reinforcements:q}"
        " --images {input.images:q} --output {output:q} 2>&1 | tee {log:q}"


rule gather:
    """The chunks of a pool as one: links to their shards, and one index."""
    input:
        lambda wildcards: chunks(f"pool/{wildcards.pool}"),
    output:
        directory("results/pool/{pool}/shards"),
    log:
        "results/logs/gather/{pool}.log",
    benchmark:
        "results/benchmarks/gather/{pool}.tsv"
    wildcard_constraints:
        pool=names("pool", fetched),
    conda:
        "../../envs/pool.yaml"
    threads: 1
    resources:
        **asks("gather", mem_mb=4000, runtime=120),
    params:
        number=lambda wildcards, input: len(input),
        code=code("clipdr.pool.gather"),
    shell:
        "python -m clipdr.pool gather --folder results/pool/{wildcards.pool:q}/chunks --chunks {params.number}"
        " --output {output:q} 2>&1 | tee {log:q}"
