rule table:
    """Reproduced mean and spread beside the published value; parameters and latency of the networks beside the paper's."""
    input:
        records=records,
        measurements=measurements,
        experiment=ancient("config/experiments/{experiment}.yaml"),
    output:
        multiext("results/tables/{experiment}", ".csv", ".md", ".tex"),
    log:
        "results/logs/table/{experiment}.log",
    benchmark:
        "results/benchmarks/table/{experiment}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        scale=f"config/scales/{CONFIG['scale']}.yaml",
        stem="results/tables/{experiment}",
        settings=report_settings,
        code=code("clipdr.report.table"),
    shell:
        "python -m clipdr.report table --experiment {input.experiment:q} --scale {params.scale:q} --results results"
        " --output {params.stem:q} 2>&1 | tee {log:q}"


rule figure:
    """The table as a picture: ours and the paper's side by side, never on one axis."""
    input:
        records=records,
        experiment=ancient("config/experiments/{experiment}.yaml"),
    output:
        "results/figures/{experiment}.png",
    log:
        "results/logs/figure/{experiment}.log",
    benchmark:
        "results/benchmarks/figure/{experiment}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        scale=f"config/scales/{CONFIG['scale']}.yaml",
        settings=report_settings,
        code=code("clipdr.report.figure"),
    shell:
        "python -m clipdr.report figure --experiment {input.experiment:q} --scale {params.scale:q} --results results"
        " --output {output:q} 2>&1 | tee {log:q}"


rule figure1:
    """Published accuracy over latency: on this machine and, on an axis of its own, on the paper's phone."""
    input:
        latencies=figure1_latencies,
        experiment=ancient("config/experiments/table7.yaml"),
    output:
        "results/figures/figure1.png",
    log:
        "results/logs/figure/figure1.log",
    benchmark:
        "results/benchmarks/figure/figure1.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        experiment=figure1_experiment,
        code=code("clipdr.report.latency"),
    shell:
        "python -m clipdr.report latency --experiment {input.experiment:q} --results results --column Avg-38"
        " --output {output:q} 2>&1 | tee {log:q}"


rule chain:
    """The picture of the README: the chain, with a few images of the pool and their words."""
    input:
        pool="results/pool/<pool>",
        captions=f"results/captions/<pool>/{next(iter(SCALE['datasets'].values()))['name']}.parquet",
    output:
        "results/figures/chain.png",
    log:
        "results/logs/figure/chain.log",
    benchmark:
        "results/benchmarks/figure/chain.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code("clipdr.report.chain"),
    shell:
        "python -m clipdr.report chain --pool {input.pool:q} --captions {input.captions:q} --output {output:q}"
        " 2>&1 | tee {log:q}"
