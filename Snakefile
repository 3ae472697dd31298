# The chain: pool -> subset -> captions -> reinforced shards -> runs -> evaluations -> tables and figures.
#   snakemake --cores all                      every experiment named in config/config.yaml
#   snakemake --cores all table2               one experiment; of another paper than MobileCLIP, <paper>-<name>
#   snakemake --cores all clipkd               every experiment of a paper
#   snakemake --cores all everything           every experiment that the scale has
#   snakemake --cores all models               parameters and multiply-accumulates of every model
#   snakemake --cores all --config scale=ci    the same chain, a few minutes
#   snakemake --cores 1 list                   every experiment and what is left of it, or why this scale does not have it
#   snakemake --cores 1 plan                   what all of the scale would cost: jobs, GPU hours, storage, download
from snakemake.utils import min_version

min_version("9.20")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/pool.smk"
include: "workflow/rules/datacomp.smk"
include: "workflow/rules/zoo.smk"
include: "workflow/rules/reinforce.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/report.smk"


onstart:
    if "everything" in workflow.dag_settings.targets:
        print(f"everything: {cost_of(*EXPERIMENTS)}", file=sys.stderr)


check_rules(SCALE.get("resources", {}), workflow.rules)
# What runs a package is made again when that changes; Snakemake itself looks at environments with --sdm conda alone.
for made_by in workflow.rules:
    if "code" in made_by.params.keys():
        made_by.set_params(pins=pins(made_by.conda_env))


rule all:
    default_target: True
    input:
        ALL,
    localrule: True


rule everything:
    """All tables and figures of all papers that this scale has, and the page."""
    input:
        tables_of(*EXPERIMENTS),
        PAGE,
    localrule: True


rule download_eval:
    """All tasks that something is scored on at this scale, of those that can be fetched."""
    input:
        [f"{TASKS}/{folder}" for folder in FETCHED],
    localrule: True


# One target per paper: all of its experiments that this scale has.
for paper in sorted({planned.paper for planned in EXPERIMENTS.values()}):

    rule:
        name:
            paper
        input:
            [*tables_of(*(name for name, one in EXPERIMENTS.items() if one.paper == paper)), PAGE],
        localrule: True


# One target per experiment: <paper>-<name>, and the bare name too for MobileCLIP's.
for experiment, planned in EXPERIMENTS.items():

    rule:
        name:
            experiment
        input:
            report_files(experiment),
        localrule: True

    if planned.paper == configuration.BARE:

        rule:
            name:
                planned.name
            input:
                report_files(experiment),
            localrule: True


rule plan:
    """What the scale would cost, counted from nothing, before anything of it is made."""
    localrule: True
    handover: True  # prints to the terminal, and so needs neither a log nor an environment
    params:
        text=planned_cost,
    shell:
        "printf '%s\\n' {params.text:q}"


rule list:
    localrule: True
    handover: True  # prints to the terminal, and so needs neither a log nor an environment
    params:
        text=listed,  # looks at files, and so only when it is asked for
    shell:
        "printf '%s\\n' {params.text:q}"


rule rulegraph:
    """The rules of `all`, and what each reads of others, as docs/rulegraph.md shows them."""
    output:
        "results/rulegraph.md",
    localrule: True
    handover: True  # Snakemake itself is asked, in the environment in which it runs
    shell:
        "{{ printf '# The rules of the chain\\n\\nWritten by `snakemake --cores 1 rulegraph`; an arrow leads to what reads.\\n\\n```mermaid\\n'"
        " && snakemake --forceall --rulegraph mermaid-js all && printf '```\\n'; }} > {output:q}"


rule settings:
    """What a job is told, as the file that it reads. Most folders are named after it, and so it is written once."""
    output:
        "results/{told}/settings.json",
    log:
        "results/logs/settings/{told}.log",
    localrule: True
    conda:
        "envs/shell.yaml"  # has no packages, because everything is made again with settings
    params:
        text=lambda wildcards: as_json(SETTINGS[wildcards.told]),
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


# A target that is neither a rule nor a path is a misspelt experiment, or one that this scale does not have. An exception
# here would be printed with a traceback; as an input that is missing, the sentence stands by itself.
rule unknown_experiment:
    input:
        lambda wildcards: no_such_experiment(wildcards.name),
    output:
        "{name}",
    wildcard_constraints:
        name=r"[\w-]+",
    localrule: True
