# Networks are made from their names: no file is read but config/models, whose content comes as a parameter.


rule models:
    """Parameters and multiply-accumulates of all of config/models, as a table."""
    output:
        csv="results/networks/models.csv",
        md="results/networks/models.md",
        tex="results/networks/models.tex",
    log:
        "results/logs/networks/table.log",
    benchmark:
        "results/benchmarks/networks/table.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("models", mem_mb=2000, runtime=10),
    params:
        stem=subpath(output.csv, strip_suffix=".csv"),
        settings=as_json(MODELS),
        code=code("clipdr.deploy.counts"),
    shell:
        "python -m clipdr.deploy counts --table {params.stem:q} 2>&1 | tee {log:q}"


rule counts:
    """The same of the networks whose parameters stand in a table of the papers, as JSON."""
    output:
        "results/networks/counts.json",
    log:
        "results/logs/networks/counts.log",
    benchmark:
        "results/benchmarks/networks/counts.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("counts", mem_mb=2000, runtime=10),
    params:
        names=COUNTED,
        settings=as_json({name: MODELS.get(name) for name in COUNTED}),
        code=code("clipdr.deploy.counts"),
    shell:
        "python -m clipdr.deploy counts --model {params.names:q} --output {output:q} 2>&1 | tee {log:q}"


rule work:
    """What the runs of a table have to compute, at inference and in training."""
    input:
        settings="results/work/{work}/settings.json",
    output:
        "results/work/{work}/work.json",
    log:
        "results/logs/work/{work}.log",
    benchmark:
        "results/benchmarks/work/{work}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("work", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.deploy.work"),
    shell:
        "python -m clipdr.deploy work --settings {input.settings:q} --output {output:q} 2>&1 | tee {log:q}"


rule export:
    """Both towers of a full-size network, reparameterized and with random weights, for ONNX Runtime and Core ML."""
    output:
        # Up to 0.6 GB, with weights that nobody needs once the latency is measured.
        onnx=temp(expand("results/export/{{network}}/{tower}.onnx", tower=["image", "text"])),
        coreml=directory(expand("results/export/{{network}}/{tower}.mlpackage", tower=["image", "text"])),
        report="results/export/{network}/export.json",
    log:
        "results/logs/export/{network}.log",
    benchmark:
        "results/benchmarks/export/{network}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("export", mem_mb=4000, runtime=30),
    params:
        network=network_name,
        settings=network_settings,
        folder=subpath(output.report, parent=True),
        code=code("clipdr.deploy.export"),
    shell:
        "python -m clipdr.deploy export --model {params.network:q} --output {params.folder:q} 2>&1 | tee {log:q}"


rule latency:
    """Latency of both towers on this machine, by ONNX Runtime and by torch, one image or text at a time."""
    input:
        onnx=rules.export.output.onnx,
        report=rules.export.output.report,
    output:
        "results/networks/latency/{network}.json",
    log:
        "results/logs/latency/{network}.log",
    benchmark:
        "results/benchmarks/latency/{network}.tsv"
    conda:
        "../../envs/torch.yaml"
    # One thread is measured. All cores are taken so that no other job of this call runs beside it and slows it down.
    # Where jobs are submitted there is no number of cores for the whole call (None), and one is asked for: whoever wants
    # quiet machines there must ask for whole nodes, of one kind.
    threads: lambda wildcards: workflow.resource_settings.cores or 1
    resources:
        **asks("latency", mem_mb=4000, runtime=30),
    params:
        network=network_name,
        folder=subpath(input.report, parent=True),
        code=code("clipdr.deploy.latency"),
    shell:
        "python -m clipdr.deploy latency --model {params.network:q} --export {params.folder:q} --threads 1 --runs 100"
        " --output {output:q} 2>&1 | tee {log:q}"
