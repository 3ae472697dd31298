rule evaluate:
    """One process over a run's share of the suite, which is all of it unless the scale has several jobs."""
    input:
        settings=made_from("suite", "settings.json"),
        model=made_from("run", "model"),
        teachers=made_from("teachers", "model"),
        tasks=tasks,
    output:
        directory("results/eval/{eval}/scores/{chunk}"),
    log:
        "results/logs/evaluate/{eval}/{chunk}.log",
    benchmark:
        "results/benchmarks/evaluate/{eval}/{chunk}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("evaluate", mem_mb=4000, runtime=30, gpu=EVALUATE_GPUS),
    params:
        tasks=lambda wildcards: tasks_folder(suite(wildcards)),
        devices=SCALE["evaluation"].get("devices", ["cpu"]),
        teachers=lambda wildcards, input: options(input, ("teachers",)),
        code=evaluate_code,
    shell:
        "python -m clipdr.evaluate suite --model {input.model:q} --tasks {params.tasks:q} --settings {input.settings:q}"
        " --part {wildcards.chunk} --devices {params.devices} {params.teachers:q} --threads {threads} --output {output:q} 2>&1 | tee {log:q}"


# Tasks that are not cut from a pool, in the folder that the scale names: fetched as the suite's lock says, or by hand.
TASKS = SCALE["evaluation"].get("tasks")
GIVEN = {folder_of(task): task for task in TASKS_OF_ALL.values() if TASKS and "images_of" not in task}
FETCHED = {folder: task for folder, task in GIVEN.items() if "source" in task}


rule plan_download:
    """How much is to be fetched, before anything is; stops where the disk has no room for it."""
    output:
        temp("results/plan_download.txt"),
    log:
        "results/logs/plan_download.log",
    benchmark:
        "results/benchmarks/plan_download.tsv"
    localrule: True
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        suites=sorted({task["suite"] for task in GIVEN.values()}),
        tasks=TASKS,
        code=code("clipdr.evaluate.download"),
    shell:
        "python -m clipdr.evaluate plan --suites {params.suites:q} --tasks {params.tasks:q} 2>&1 > {output:q} | tee {log:q};"
        " cat {output:q} >&2"


rule download_task:
    """One task, at the revision and with the hashes of the lock. New code does not fetch again what has these hashes."""
    input:
        plan=ancient("results/plan_download.txt"),
    output:
        directory(f"{TASKS or 'results/none'}/{{folder}}"),
    log:
        "results/logs/download_task/{folder}.log",
    benchmark:
        "results/benchmarks/download_task/{folder}.tsv"
    wildcard_constraints:
        folder="|".join(map(re.escape, FETCHED)) or "none",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **asks("download_task", mem_mb=4000, runtime=600),
    params:
        suite=lambda wildcards: FETCHED[wildcards.folder]["suite"],
        task=lambda wildcards: FETCHED[wildcards.folder]["key"],
    shell:
        "python -m clipdr.evaluate download --suite {params.suite:q} --task {params.task:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule task_by_hand:
    """A task that nobody may hand out: the job stops, and says where it is got and where it belongs."""
    output:
        directory(f"{TASKS or 'results/none'}/{{folder}}"),
    log:
        "results/logs/task_by_hand/{folder}.log",
    benchmark:
        "results/benchmarks/task_by_hand/{folder}.tsv"
    wildcard_constraints:
        folder="|".join(map(re.escape, GIVEN.keys() - FETCHED.keys())) or "none",
    localrule: True
    conda:
        "../../envs/shell.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        source=lambda wildcards: GIVEN[wildcards.folder].get("by_hand", "no source is known"),
    shell:
        "printf 'error: %s is not there; get it by hand: %s\\n' {output:q} {params.source:q} 2>&1 | tee {log:q}; exit 1"
