# The chain: pool -> subset -> captions -> reinforced shards -> runs -> evaluations -> tables and figures.
#   snakemake --cores all                      every experiment named in config/config.yaml
#   snakemake --cores all table2               one experiment
#   snakemake --cores all models               parameters and multiply-accumulates of every model
#   snakemake --cores all --config scale=ci    the same chain, a few minutes
from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/pool.smk"
include: "workflow/rules/zoo.smk"
include: "workflow/rules/reinforce.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        [report_files(experiment) for experiment in CONFIG["experiments"]],
        "results/tables/models.md",
        "results/figures/chain.png",
    localrule: True


# One target per experiment, by its file's name.
for experiment in EXPERIMENTS:

    rule:
        name:
            experiment
        input:
            report_files(experiment),
        localrule: True


# A target that is neither a rule nor a path is a misspelt experiment: say so, with the nearest name.
rule unknown_experiment:
    input:
        no_such_experiment,
    output:
        "{name}",
    wildcard_constraints:
        name=r"[\w-]+",
    localrule: True
