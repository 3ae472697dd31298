# What targets ask for and print: tables and figures, the list of experiments, what a scale would cost.
from clipdr import listing
from clipdr.schema import load


def report_files(experiment):
    """Table, and the picture of what was trained for it."""
    one, folder = EXPERIMENTS[experiment], f"results/{CONFIG['scale']}"
    tables = [f"{folder}/tables/{one.paper}/{one.name}.{suffix}" for suffix in ("csv", "md", "tex")]
    drawn = has_scores(one.experiment) and not one.measured
    trained = any(run.artifact.stage == "runs" for run in one.runs)
    stems = [one.name, *([f"{one.name}-loss"] if trained else [])] if drawn else []
    return tables + [f"{folder}/figures/{one.paper}/{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")]


def scored_for(*experiments):
    """What the tables of experiments are made from: evaluations, or what is measured in their place."""
    found = [made for name in experiments for made in EVALUATIONS[name].values()]
    return found + [of[name] for of in (MEASURED, WORK) for name in experiments if name in of]


# What a gallery shows: a run of the first experiment, and its first tasks of two kinds.
def of_gallery():
    """The evaluation, its row, and a task of classification and of retrieval; None where there are none."""
    for name in CONFIG["experiments"]:
        runs = [run for run in EVALUATIONS[name] if run.artifact.stage == "runs"]
        tasks = {}
        for task in tasks_of(EXPERIMENTS[name])["tasks"] if runs else []:
            tasks.setdefault(task["kind"], task["key"])
        if {"classification", "retrieval"} <= tasks.keys():
            run = next(run for run in runs if run.row == runs[-1].row)
            return EVALUATIONS[name][run], run.row, tasks["classification"], tasks["retrieval"]


GALLERY = of_gallery()


def gallery_scores(wildcards):
    return [f"results/{folder}" for folder in scores(GALLERY[0])] if GALLERY else []


def gallery_tasks(wildcards):
    """The pool's tasks, or the two folders among those that the scale names."""
    if not GALLERY:
        return []
    of_suite = GALLERY[0].inputs["suite"]
    folder = tasks_folder(of_suite)
    return [f"{folder}/{folder_name(key)}" for key in GALLERY[2:]] if "folder" in of_suite.settings else folder


def gallery_folder(wildcards):
    return tasks_folder(GALLERY[0].inputs["suite"]) if GALLERY else ""


def gallery_keys(wildcards):
    return list(GALLERY[2:]) if GALLERY else []


def gallery_title(wildcards):
    return f"{GALLERY[1]}, at scale {CONFIG['scale']}" if GALLERY else ""


# What `all` makes.
PICTURES = [f"results/{CONFIG['scale']}/figures/{name}.png" for name in ("chain", *(["gallery"] if GALLERY else []))]
PAGE = "results/report.html"
ALL = [
    *(path for experiment in CONFIG["experiments"] for path in report_files(experiment)),
    "results/networks/models.md",
    *PICTURES,
    PAGE,
]


def asked(*targets):
    """The experiments that targets stand for; those of config.yaml, of any other target."""
    found = []
    for target in targets:
        of_paper = [name for name, one in EXPERIMENTS.items() if one.paper == target]
        found += list(EXPERIMENTS) if target == "everything" else of_paper
    return list(dict.fromkeys(found)) or CONFIG["experiments"]


def tables_of(*experiments):
    return [path for name in experiments for path in report_files(name)]


def page_tables(wildcards):
    """What this call makes: the page waits for it."""
    names = asked(*workflow.dag_settings.targets)
    return tables_of(*names) + (PICTURES if {*CONFIG["experiments"]} <= {*names} else [])


def page_form(wildcards):
    """Changes with the page's form: as an input it would be newer than an archived page in every clone."""
    return sha256((SRC / "clipdr/report/page.html").read_bytes())[:12]


def other_tables(wildcards):
    """What else is there, as its hashes: the page shows it as it is."""
    others = [name for name in EXPERIMENTS if name not in asked(*workflow.dag_settings.targets)]
    there = [Path(report_files(name)[1]) for name in others]
    return {path.as_posix(): sha256(path.read_bytes())[:12] for path in there if path.is_file()}


# Pictures of no table: file, target, title.
SHOWN = [
    ("chain", "all", "The chain, with images of the pool and their words"),
    (
        "gallery",
        "all",
        "Held-out images as a model of the first table sees them: hits, misses, and images found by their texts",
    ),
    (
        "mobileclip/figure1",
        "figure1",
        "MobileCLIP, Figure 1: published accuracy over latency, measured here and published",
    ),
    ("mobileclip/figure5", "figure5", "MobileCLIP, Figure 5: real and synthetic captions"),
]


def command_of(name):
    """How a table is made, at this scale."""
    scale = "" if CONFIG["scale"] == "mini" else f" --config scale={CONFIG['scale']}"
    return f"snakemake --cores all {name}{scale}"


def page_settings():
    """What the report is told: what there could be, and which settings each table would have today."""
    told = {name: SETTINGS[f"{CONFIG['scale']}/report/{one.paper}/{one.name}"] for name, one in EXPERIMENTS.items()}
    known = [
        {"paper": one.paper, "name": one.name, "title": one.experiment["title"], "command": command_of(name)}
        | {"settings": sha256(as_json(told[name]).encode())}
        for name, one in EXPERIMENTS.items()
    ]
    left_out = [
        {
            **dict(zip(("paper", "name"), name.split("-", 1), strict=True)),
            "title": name,
            "command": command_of(name),
            "undefined": why,
        }
        for name, why in MISFITS.items()
    ]
    scale = {"name": CONFIG["scale"], "title": SCALE["title"]}
    pictures = [
        {"file": f"{CONFIG['scale']}/figures/{file}.svg", "title": title, "command": command_of(target)}
        for file, target, title in SHOWN
    ]
    return {"scale": scale, "pictures": pictures, "experiments": known + left_out}


SETTINGS[f"{CONFIG['scale']}/page"] = page_settings()


def archived(wildcards, input):
    """Tables and figures, what they were told, and all that they are made from; of others what the page has shown."""
    names = CONFIG["experiments"]
    behind = all_of([CHAIN, *scored_for(*names)])
    others = [name for name in EXPERIMENTS if report_files(name)[1] in other_tables(wildcards)]
    reports = [f"report/{EXPERIMENTS[name].paper}/{EXPERIMENTS[name].name}" for name in [*names, *others]] + ["page"]
    told = [f"results/{CONFIG['scale']}/{report}" for report in reports]
    packages = {made.settings["packages"] for made in behind.values() if "packages" in made.settings}
    sources = [f"results/sources/{Path(folder).name}" for folder in sorted(packages)]
    shown = [path for path in tables_of(*others) if Path(path).is_file()]
    return [*input, *shown, "results/networks", *told, *sources, *(f"results/{path}" for path in behind)]


# Targets of no experiment, <paper>-<rule>.
OTHERS = ["mobileclip-figure1", "mobileclip-figure5", "networks-models"]


def missing(paths):
    return sum(not Path(path).exists() for path in paths)


def cost_of(*experiments):
    """What is left of some experiments together, and for how long, of one job after the other."""
    jobs = listing.left(scored_for(*experiments), Path("results"), SCALE["evaluation"].get("jobs", 1))
    return listing.cost(jobs, listing.seconds(Path("results")))


def listed(wildcards):
    """What there is, and what it would cost now."""
    times, parts, costs = listing.seconds(Path("results")), SCALE["evaluation"].get("jobs", 1), {}
    for name, one in EXPERIMENTS.items():
        jobs = listing.left(scored_for(name), Path("results"), parts)
        jobs["latency"] = missing(latencies(one.experiment))
        jobs.update({Path(path).parts[2].removesuffix("s") for path in report_files(name) if missing([path])})
        costs[name] = listing.cost(+jobs, times)
    misfits, others = dict(MISFITS), {key: workflow.get_rule(key.partition("-")[2]) for key in OTHERS}
    for key, one in others.items():
        if one.name == "figure1" and "mobileclip-table7" in MISFITS:
            misfits[key] = MISFITS["mobileclip-table7"]
            continue
        jobs = listing.left([CHAIN] if one.name == "figure5" else [], Path("results"))
        jobs[one.name] = min(1, missing(one.output))
        jobs["latency"] = missing(figure1_latencies(wildcards)) if one.name == "figure1" else 0
        costs[key] = listing.cost(+jobs, times)
    shown = {key: one.docstring.rstrip(".") for key, one in others.items()}
    return listing.listing(EXPERIMENTS, costs, misfits, shown)


def planned_cost(wildcards):
    """What all that config/config.yaml names would cost; written into results, too."""
    from clipdr import plan  # and with it pandas, for which no other target has to wait

    try:
        rates = load(ROOT, CONFIG.get("rates", "config/rates.yaml"), "rates")
        tables = [
            load(ROOT, f"config/experiments/mobileclip/{name}.yaml", "experiment") for name in ("table4c", "table4d")
        ]
    except UserError as error:
        raise WorkflowError(str(error)) from None
    lines = plan.plan(scored_for(*CONFIG["experiments"]), SCALE, rates, listing.seconds(Path("results")))
    output = Path(f"results/plan-{CONFIG['scale']}")
    output.parent.mkdir(exist_ok=True)
    plan.write(lines, f"What scale {CONFIG['scale']} would cost", rates, plan.published(*tables), output)
    return output.with_name(f"{output.name}.md").read_text(encoding="utf-8")


def no_such_experiment(name):
    """Why no experiment of that name can be made, with the nearest one."""
    try:
        return MISFITS[configuration.full_name(name, [*EXPERIMENTS, *MISFITS])]
    except UserError as error:
        return str(error)
