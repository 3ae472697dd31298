rule table:
    """Reproduced mean and interval beside the published value; parameters and latency of the networks beside the paper's."""
    input:
        settings=f"results/{CONFIG['scale']}/report/{{paper}}/{{experiment}}/settings.json",
        scored=scored,
        measurements=measurements,
    output:
        multiext(f"results/{CONFIG['scale']}/tables/{{paper}}/{{experiment}}", ".md", ".tex"),
        csv=report(
            f"results/{CONFIG['scale']}/tables/{{paper}}/{{experiment}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"paper": "{paper}", "table": "{experiment}"},
        ),
    log:
        f"results/logs/table/{CONFIG['scale']}/{{paper}}/{{experiment}}.log",
    benchmark:
        f"results/benchmarks/table/{CONFIG['scale']}/{{paper}}/{{experiment}}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("table", mem_mb=2000, runtime=10),
    params:
        stem=f"results/{CONFIG['scale']}/tables/{{paper}}/{{experiment}}",
        code=table_code,
    shell:
        "python -m clipdr.report table --settings {input.settings:q} --results results --output {params.stem:q}"
        " 2>&1 | tee {log:q}"


rule figure:
    """The table as a picture: ours and the paper's side by side, never on one axis."""
    input:
        settings=f"results/{CONFIG['scale']}/report/{{paper}}/{{experiment}}/settings.json",
        scored=scored,
    output:
        svg=f"results/{CONFIG['scale']}/figures/{{paper}}/{{experiment}}.svg",
        png=report(
            f"results/{CONFIG['scale']}/figures/{{paper}}/{{experiment}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"paper": "{paper}", "figure": "{experiment}"},
        ),
    log:
        f"results/logs/figure/{CONFIG['scale']}/{{paper}}/{{experiment}}.log",
    benchmark:
        f"results/benchmarks/figure/{CONFIG['scale']}/{{paper}}/{{experiment}}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("figure", mem_mb=2000, runtime=10),
    params:
        code=figure_code,
    shell:
        "python -m clipdr.report figure --settings {input.settings:q} --results results --output {output.png:q}"
        " 2>&1 | tee {log:q}"


rule losses:
    """How the loss of a table's runs went, a line per row."""
    input:
        settings=f"results/{CONFIG['scale']}/report/{{paper}}/{{experiment}}/settings.json",
        runs=trained_models,
    output:
        svg=f"results/{CONFIG['scale']}/figures/{{paper}}/{{experiment}}-loss.svg",
        png=report(
            f"results/{CONFIG['scale']}/figures/{{paper}}/{{experiment}}-loss.png",
            caption="../report/losses.rst",
            category="Losses",
            labels={"paper": "{paper}", "figure": "{experiment}"},
        ),
    log:
        f"results/logs/losses/{CONFIG['scale']}/{{paper}}/{{experiment}}.log",
    benchmark:
        f"results/benchmarks/losses/{CONFIG['scale']}/{{paper}}/{{experiment}}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("losses", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.report.losses"),
    shell:
        "python -m clipdr.report losses --settings {input.settings:q} --results results --output {output.png:q}"
        " 2>&1 | tee {log:q}"


rule page:
    """All tables that are there on one page, the papers' claims with their verdicts, and the commands for the rest."""
    input:
        settings=f"results/{CONFIG['scale']}/page/settings.json",
        tables=page_tables,
    output:
        report("results/report.html", caption="../report/page.rst", category="Report"),
    log:
        f"results/logs/page/{CONFIG['scale']}.log",
    benchmark:
        f"results/benchmarks/page/{CONFIG['scale']}.tsv"
    localrule: True
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        others=other_tables,
        form=page_form,
        code=code("clipdr.report.page"),
    shell:
        "python -m clipdr.report page --settings {input.settings:q} --results results --output {output:q}"
        " 2>&1 | tee {log:q}"


rule archive:
    """What `all` makes, and all that it rests on, as one file."""
    input:
        ALL,
    output:
        f"results/archive-{CONFIG['scale']}.tar.gz",
    log:
        f"results/logs/archive/{CONFIG['scale']}.log",
    benchmark:
        f"results/benchmarks/archive/{CONFIG['scale']}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("archive", mem_mb=2000, runtime=60),
    params:
        paths=archived,
        code=code("clipdr.archive"),
    shell:
        "python -m clipdr.archive {params.paths:q} --output {output:q} 2>&1 | tee {log:q}"


rule figure1:
    """Published accuracy over latency: on this machine and, on an axis of its own, on the paper's phone."""
    input:
        settings=f"results/{CONFIG['scale']}/report/mobileclip/table7/settings.json",
        latencies=figure1_latencies,
    output:
        svg=f"results/{CONFIG['scale']}/figures/mobileclip/figure1.svg",
        png=f"results/{CONFIG['scale']}/figures/mobileclip/figure1.png",
    log:
        f"results/logs/figure/{CONFIG['scale']}/mobileclip/figure1.log",
    benchmark:
        f"results/benchmarks/figure/{CONFIG['scale']}/mobileclip/figure1.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("figure1", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.report.latency"),
    shell:
        "python -m clipdr.report latency --settings {input.settings:q} --results results --column Avg-38"
        " --output {output.png:q} 2>&1 | tee {log:q}"


rule chain:
    """The picture of the README: the chain, with a few images of the pool and their words."""
    input:
        pool=f"results/{CHAIN.inputs['pool'].path}/shards",
        captions=f"results/{CHAIN.path}/manifest.json",
    output:
        svg=f"results/{CONFIG['scale']}/figures/chain.svg",
        png=f"results/{CONFIG['scale']}/figures/chain.png",
    log:
        f"results/logs/figure/{CONFIG['scale']}/chain.log",
    benchmark:
        f"results/benchmarks/figure/{CONFIG['scale']}/chain.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("chain", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.report.chain"),
    shell:
        "python -m clipdr.report chain --pool {input.pool:q} --captions {input.captions:q} --output {output.png:q}"
        " 2>&1 | tee {log:q}"


rule gallery:
    """Held-out images as a model sees them: hits, misses, and images that are found by their texts."""
    input:
        scores=gallery_scores,
        tasks=gallery_tasks,
    output:
        svg=f"results/{CONFIG['scale']}/figures/gallery.svg",
        png=f"results/{CONFIG['scale']}/figures/gallery.png",
    log:
        f"results/logs/figure/{CONFIG['scale']}/gallery.log",
    benchmark:
        f"results/benchmarks/figure/{CONFIG['scale']}/gallery.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("gallery", mem_mb=2000, runtime=10),
    params:
        tasks=gallery_folder,
        shown=gallery_keys,
        title=gallery_title,
        code=code("clipdr.report.gallery"),
    shell:
        "python -m clipdr.report gallery --tasks {params.tasks:q} --scores {input.scores:q} --keys {params.shown:q}"
        " --title {params.title:q} --output {output.png:q} 2>&1 | tee {log:q}"


rule figure5:
    """Real against synthetic captions, on a few images of the pool."""
    input:
        pool=rules.chain.input.pool,
        captions=rules.chain.input.captions,
    output:
        svg=f"results/{CONFIG['scale']}/figures/mobileclip/figure5.svg",
        png=f"results/{CONFIG['scale']}/figures/mobileclip/figure5.png",
    log:
        f"results/logs/figure/{CONFIG['scale']}/mobileclip/figure5.log",
    benchmark:
        f"results/benchmarks/figure/{CONFIG['scale']}/mobileclip/figure5.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        **asks("figure5", mem_mb=2000, runtime=10),
    params:
        code=code("clipdr.report.captions"),
    shell:
        "python -m clipdr.report captions --pool {input.pool:q} --captions {input.captions:q} --output {output.png:q}"
        " 2>&1 | tee {log:q}"
