# What jobs ask a cluster for, and how a training is started on what it got. Nothing here changes what is made.
from clipdr.errors import nearest

# GPUs that jobs ask a cluster for.
REINFORCE_GPUS = int(DEVICE == "cuda")
EVALUATE_GPUS = sum(device.startswith("cuda") for device in SCALE["evaluation"].get("devices", []))
# Where a training runs changes nothing of it, but for the number of its processes, which is a setting.
PER_NODE = SCALE.get("resources", {}).get("train", {}).get("processes_per_node")


def asks(rule, gpu=0, **own):
    """What jobs ask a cluster for, the given figures or those of the scale, more after each failure; and GPUs."""
    wanted = own | {
        key: value for key, value in SCALE.get("resources", {}).get(rule, {}).items() if key != "processes_per_node"
    }
    return {key: grown(value) for key, value in wanted.items()} | ({"gpu": gpu} if gpu else {})


def grown(value):
    """Input function: as much more as a job has been tried."""
    return lambda wildcards, attempt: value * attempt


def processes(wildcards):
    """How many processes train a run; sums depend on how they are split, and so each computes with one thread."""
    return ARTIFACTS[f"runs/{wildcards.runs}"].settings["training"]["processes"]


def nodes(wildcards):
    """How many nodes a training needs."""
    return -(-processes(wildcards) // PER_NODE) if PER_NODE else 1


def share(wildcards):
    """Processes of a training on each node."""
    return processes(wildcards) // nodes(wildcards)


def train_threads(wildcards):
    """Cores of a node: a training process computes on one, and each of its workers reads on another."""
    return share(wildcards) * (1 + ARTIFACTS[f"runs/{wildcards.runs}"].settings["training"]["workers"])


def node_gpus(wildcards):
    """GPUs that a training has on each node, one for each process."""
    return share(wildcards) * (ARTIFACTS[f"runs/{wildcards.runs}"].settings["training"]["device"] == "cuda")


def train_resources():
    """Of a training: on several nodes, srun starts torchrun once on each, and there torchrun its processes."""
    asked = asks("train", mem_mb=4000, runtime=60, gpu=node_gpus)
    if not PER_NODE:
        return asked
    # GPUs as `gres`, which is of each node, where `gpu` is of the whole job; without the 0, `tasks` would be per GPU.
    return asked | {
        "gpu": 0,
        "gres": lambda wildcards: f"gpu:{gpus}" if (gpus := node_gpus(wildcards)) else "",
        "mpi": lambda wildcards: "srun" if nodes(wildcards) > 1 else "",
        "nodes": nodes,
        "tasks": nodes,
        "tasks_per_gpu": 0,
    }


def start(wildcards):
    """What starts a training: Python; torchrun, for several processes on one machine; srun, for one torchrun per node.

    The plugin takes SLURM's variables away, all but the job's number.
    """
    number, gpus = nodes(wildcards), node_gpus(wildcards)
    if processes(wildcards) == 1:
        return "python -m"
    if number == 1:
        return f"torchrun --standalone --nproc-per-node {processes(wildcards)} -m"
    return (
        f"srun --ntasks={number} --cpus-per-task={train_threads(wildcards)}{f' --gpus-per-task={gpus}' if gpus else ''}"
        f" torchrun --nnodes={number} --nproc-per-node={share(wildcards)}"
        " --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d"
        " --rdzv-endpoint=$(squeue --noheader --job=$SLURM_JOB_ID --format=%B):$((20000 + SLURM_JOB_ID % 40000)) -m"
    )


def check_rules(named, rules):
    """Stops where the scale says what a rule asks for, and there is none of that name."""
    known = [rule.name for rule in rules]
    if unknown := [name for name in named if name not in known]:
        source = f"config/scales/{CONFIG['scale']}.yaml"
        raise WorkflowError(f"{source}: resources.{unknown[0]} is no rule{nearest(unknown[0], known)}")
